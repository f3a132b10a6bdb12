"""An event loop in a thread of its own, for callers in several threads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines one at a time between their awaits, so that they can share state without locks.

    The thread does not keep the process alive, unlike that of anyio's blocking portal.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="service", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; raises what it raises."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
