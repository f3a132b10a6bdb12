"""The address of a Ray dashboard, and why requests to it fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from evoswarm.errors import UserError


@contextlib.contextmanager
def address_variables_unset() -> Iterator[None]:
    """Hide addresses in the environment: Ray prefers them to its argument."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def dashboard_address(address: str | None) -> str:
    """The address to use: the given one, or the one in the environment.

    Raises:
        UserError: there is none, or it is not the address of a dashboard.
    """
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS") or ""
    if not found and os.environ.get("RAY_ADDRESS", "").startswith("http"):
        found = os.environ["RAY_ADDRESS"]
    if not found:
        raise UserError("give --address http://HEAD:8265 (the dashboard's), or set RAY_API_SERVER_ADDRESS")
    try:
        parts = urlsplit(found)
    except ValueError as error:
        raise UserError(f"--address {_bare(found)}: {error}; give the dashboard's, as http://HEAD:8265") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
        raise UserError(f"--address {_bare(found)}: give the dashboard's, for example http://HEAD:8265")
    return found.rstrip("/")


def _bare(address: str) -> str:
    """An address without user and password."""
    return address.rpartition("@")[2]


def innermost(error: BaseException) -> BaseException:
    """The first error in a chain of errors."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def reason(error: BaseException) -> str:
    """Why a request failed, in one short line."""
    error = innermost(error)
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return "".join(c for c in str(text).splitlines()[0][:120] if c.isprintable()).strip()
