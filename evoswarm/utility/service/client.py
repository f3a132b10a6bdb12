"""An HTTP client that keeps to the limits of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from evoswarm.errors import UserError
from evoswarm.utility.service.account import Account
from evoswarm.utility.service.config import Limits
from evoswarm.utility.service.patience import Patience


class Client(httpx2.AsyncClient):
    """Every request is sent as `Patience.answer` says, also by libraries that are given this client."""

    def __init__(
        self, limits: Limits, account: Account, *, headers: Mapping[str, str] | None = None, hide: tuple[str, ...] = ()
    ) -> None:
        """`hide` are secrets that no message may contain."""
        super().__init__(timeout=None, headers=headers, limits=httpx2.Limits(max_connections=limits.concurrency))
        self._patience = Patience(limits, account, hide=hide)

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Raises as `Patience.answer` does."""
        return await self._patience.answer(request, lambda asked: httpx2.AsyncClient.send(self, asked, **options))

    async def reach(self, method: str, url: str, *, headers: Mapping[str, str] | None = None) -> Any:
        """See `Patience.reach`."""
        try:
            request = self.build_request(method, url, headers=headers)
        except (httpx2.InvalidURL, ValueError) as error:
            raise UserError(f"{url} is no URL: {error}") from None
        return await self._patience.reach(request, super().send)
