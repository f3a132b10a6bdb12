"""How requests are sent within the limits of a run: pace, repetition, and when to stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import httpx2

from evoswarm.errors import UserError, first_line
from evoswarm.utility.service.account import Account
from evoswarm.utility.service.config import Limits
from evoswarm.utility.service.memory import Unanswered
from evoswarm.utility.service.retry import AGAIN, STOP, Trouble, backoff, retry_after, said

IN_A_ROW = 10
"""Requests that fail one after another before the service counts as broken."""
SHORTEST_SECRET = 6
RESUME = "every answer is kept: rerun the command to resume"
Send = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


class Patience:
    """Sends requests, and repeats those that can succeed."""

    def __init__(self, limits: Limits, account: Account, *, hide: tuple[str, ...]) -> None:
        """`hide` are secrets that no message may contain; what is very short is none, and occurs in other words."""
        self._limits, self._account = limits, account
        self._hide = [secret for secret in hide if len(secret) >= SHORTEST_SECRET]
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._interval = 60 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._next = self._paused_until = 0.0
        self._lost = 0

    async def answer(self, request: httpx2.Request, send: Send) -> httpx2.Response:
        """The response: its status is 2xx, and it holds JSON.

        Raises:
            Unanswered: this request has no answer.
            UserError: no request will have one: the service cannot be reached, refuses the key or the model, asks to
                wait for too long, or is broken; or the budget is spent.
        """
        failures, waited = 0, 0.0
        async with self._slots:
            while True:
                await self._turn()
                result = await self._attempt(request, send)
                if isinstance(result, httpx2.Response):
                    return result
                if result.wait:
                    waited += result.wait
                    self._pause(request, result.wait, waited)
                    continue
                failures += 1
                if failures > self._limits.retries:
                    self._give_up(request, result._replace(reason=f"{result.reason}, {failures} times"))
                await asyncio.sleep(backoff(failures))

    async def reach(self, request: httpx2.Request, send: Send) -> Any:
        """Ask once for something free, to see whether the service is there. Returns what it says, if that is JSON.

        Raises:
            UserError: it cannot be reached, or refuses the key.
        """
        try:
            async with asyncio.timeout(self._limits.timeout):
                response = await send(request)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise self._error(
                request, f"cannot be reached ({first_line(error)}); start it, or correct the URL"
            ) from None
        if response.status_code == 401:
            self._read(response)
        return _json(response)

    async def _turn(self) -> None:
        """Wait until the next request may be sent."""
        clock = asyncio.get_running_loop().time
        self._next = turn = max(self._next + self._interval, clock())
        while (wait := max(turn, self._paused_until) - clock()) > 0:
            await asyncio.sleep(wait)

    def _pause(self, request: httpx2.Request, seconds: float, waited: float) -> None:
        """All requests wait, because the service asked for it."""
        longest = self._limits.longest_wait
        if waited > longest:
            asked = f"asks to wait {seconds:.0f} s (Retry-After), which makes {waited:.0f} s"
            raise self._error(request, f"{asked} and utility.limits.longest_wait is {longest:g}; {RESUME} later")
        self._paused_until = asyncio.get_running_loop().time() + seconds

    async def _attempt(self, request: httpx2.Request, send: Send) -> httpx2.Response | Trouble:
        self._account.send()
        try:
            async with asyncio.timeout(self._limits.timeout):
                response = await send(request)
        except TimeoutError:
            return Trouble(f"gave no answer within {self._limits.timeout:g} s")
        except httpx2.ConnectError as error:
            return Trouble(f"cannot be reached ({first_line(error)})", everyone=True)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            return Trouble(f"broke off ({first_line(error)})")
        finally:
            self._account.ended()
        return self._read(response)

    def _read(self, response: httpx2.Response) -> httpx2.Response | Trouble:
        status, request = response.status_code, response.request
        if response.is_success:
            if _json(response) is not None:
                self._lost = 0
                return response
            return Trouble(f"answered with {response.headers.get('content-type', 'something')} that is not JSON")
        answered = f"answered {said(f'{status} {response.reason_phrase}', _json(response), response.text)}"
        if status in AGAIN or status >= 500:
            return Trouble(answered, retry_after(response.headers), everyone=status == 429)
        if status in STOP:
            raise self._error(request, f"{answered}; {STOP[status]}")
        if response.is_redirect:
            raise self._error(request, f"has moved to {response.headers.get('location')}; correct the URL")
        if status == 403:  # may be about this request, or about all of them
            self._give_up(request, Trouble(answered))
        raise Unanswered(str(self._error(request, answered)))

    def _give_up(self, request: httpx2.Request, trouble: Trouble) -> NoReturn:
        if trouble.everyone:
            raise self._error(request, f"{trouble.reason}; {RESUME}")
        self._lost += 1
        if self._lost >= IN_A_ROW:
            raise self._error(request, f"failed for {self._lost} requests in a row: it {trouble.reason}; {RESUME}")
        raise Unanswered(str(self._error(request, trouble.reason)))

    def _error(self, request: httpx2.Request, what: str) -> UserError:
        """One line about the service at a URL, without secrets."""
        line = f"{request.url.copy_with(query=None)} {what}"
        for secret in self._hide:
            line = line.replace(secret, "***")
        return UserError(line)


def _json(response: httpx2.Response) -> Any:
    """The JSON of a response; None if it has none."""
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
