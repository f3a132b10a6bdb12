"""Live progress on a terminal, plain lines elsewhere, nothing on standard output under --json."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from evoswarm.config import RunConfig
from evoswarm.loop.callbacks import Callbacks, Event
from evoswarm.loop.directory import to_json

console = Console(stderr=True, highlight=False)


class Reporter:
    """Shows a run's events. A context: inside it Ctrl-C asks the run to stop; a second Ctrl-C ends it at once.

    SIGTERM, which is how Ray and Kubernetes stop a job, is the same.
    """

    def __init__(self, config: RunConfig, *, quiet: bool = False) -> None:
        """
        Args:
            config: the run.
            quiet: only warnings.
        """
        self._config, self._quiet, self._stopping = config, quiet, False
        self._start, self._first, self._examples = time.monotonic(), None, 0
        self._said: str | None = None
        self._bar: Progress | None = None
        if console.is_terminal and not quiet:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(config.name, total=config.search.max_generations + 1, state="starting")

    @property
    def callbacks(self) -> Callbacks:
        """What the run is given."""
        return Callbacks(notify=self._notify, stop=lambda: self._stopping)

    def __enter__(self) -> Reporter:
        self._before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._bar:
            self._bar.stop()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        console.print("stopping; what is measured is kept (Ctrl-C again ends at once)")

    def _notify(self, event: Event) -> None:
        getattr(self, f"_on_{event['kind']}")(event)

    def _on_warning(self, event: Event) -> None:
        print_warning(event["text"])

    def _on_message(self, event: Event) -> None:
        if not self._quiet and event["text"] != self._said:
            console.print(Text(event["text"]), style="dim", soft_wrap=True)
        self._said = event["text"]

    def _on_progress(self, event: Event) -> None:
        if self._bar:
            self._bar.update(self._task, state=f"{event['phase']} {event['done']}/{event['of']}")

    def _on_generation(self, event: Event) -> None:
        if self._quiet:
            return
        line = self._line(event)
        if self._bar:
            self._bar.update(self._task, completed=event["generation"] + 1, state=line)
        else:
            total = self._config.search.max_generations
            console.print(f"generation {event['generation']:>3}/{total}  {line}", soft_wrap=True)

    def _line(self, event: Event) -> str:
        """Read again by `launch.state`."""
        rate = event["examples"] / max(event["seconds"]["total"], 1e-9)
        median = "-" if event["median"] is None else f"{event['median']:.4f}"
        text = f"best {event['best']:.4f}  median {median}  {rate:,.0f} examples/s"
        return text if self._bar else f"{text}  {self._left(event)}"

    def _left(self, event: Event) -> str:
        """Time to the last generation at the pace so far; patience may end the run earlier."""
        if self._first is None:
            self._first, self._start = event["generation"], time.monotonic()
            return ""
        pace = (time.monotonic() - self._start) / max(1, event["generation"] - self._first)
        return f"at most {pace * (self._config.search.max_generations - event['generation']):.0f} s left"


class Interruptible:
    """A context that gives callbacks: Ctrl-C asks to stop, a second Ctrl-C ends at once."""

    def __init__(self, notify: Callable[[Event], None]) -> None:
        self._notify, self._stopping = notify, False

    def __enter__(self) -> Callbacks:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return Callbacks(notify=self._notify, stop=lambda: self._stopping)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        console.print("stopping; what is measured is kept (Ctrl-C again ends at once)")


def line_by_line(*, quiet: bool) -> Callable[[Event], None]:
    """Says what several runs do, a line for each that has ended; warnings alone if quiet."""

    def notify(event: Event) -> None:
        if event["kind"] == "warning":
            print_warning(event["text"])
        elif not quiet and event["kind"] == "unit":
            console.print(f"{event['done']:>4}/{event['of']}  {event['text']}", markup=False, soft_wrap=True)
        elif not quiet and event["kind"] == "message":
            console.print(event["text"], style="dim", markup=False, soft_wrap=True)

    return notify


def print_warning(text: str) -> None:
    """A warning on standard error; text of users and files is never markup."""
    console.print(Text("warning:", style="bold yellow"), Text(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(to_json(value, indent=2) + "\n")
