"""Callbacks from a run to its caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from evoswarm.errors import Stopped

Event = dict[str, Any]
"""{"kind": "message" | "warning" | "progress" | "generation" | "unit", ...}"""


@dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls.

    Attributes:
        notify: receives every event.
        stop: polled during the run; the run stops when it returns True.
    """

    notify: Callable[[Event], None] = lambda event: None
    stop: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """
        Raises:
            Stopped: `stop` returned True.
        """
        if self.stop():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: `stop` returned True meanwhile.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.2))

    def after(self, handle: Callable[[Event], None]) -> Callbacks:
        """Callbacks that receive every event after `handle`."""

        def notify(event: Event) -> None:
            handle(event)
            self.notify(event)

        return replace(self, notify=notify)

    def generation(self, line: dict[str, Any], timing: dict[str, Any]) -> None:
        """Report a finished generation: its line of `generations.jsonl` and its line of `timings.jsonl`."""
        self.notify({"kind": "generation", **line, "examples": timing["examples"], "seconds": timing["seconds"]})

    def unit(self, name: str, *, done: int, of: int) -> None:
        """Report one more finished unit of a comparison, or trial of a tuning."""
        self.notify({"kind": "unit", "text": name, "done": done, "of": of})

    def message(self, text: str) -> None:
        """Report a line for the user."""
        self.notify({"kind": "message", "text": text})

    def warning(self, text: str) -> None:
        """Report a line that the user sees even in quiet mode."""
        self.notify({"kind": "warning", "text": text})


SILENT = Callbacks()
"""Tells nobody, and never stops."""
