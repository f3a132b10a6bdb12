"""Live progress on a terminal, plain lines elsewhere. Everything goes to standard error."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.errors import Stopped
from evoswarm.launch.signals import StopRequest
from evoswarm.loop.directory import to_json

console = Console(stderr=True, highlight=False)


class Reporter:
    """Shows the events of a run. A context: inside it, Ctrl-C and SIGTERM ask the run to stop; see `StopRequest`."""

    def __init__(self, config: RunConfig, *, quiet: bool = False) -> None:
        """If quiet, show only warnings."""
        self._config, self._quiet, self._stop = config, quiet, stop_request()
        self._last: str | None = None
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
        """Callbacks for the run."""
        return Callbacks(notify=self._notify, stop=lambda: self._stop.received)

    def __enter__(self) -> Reporter:
        self._stop.__enter__()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.__exit__()
        if self._bar:
            self._bar.stop()

    def _notify(self, event: Event) -> None:
        getattr(self, f"_on_{event['kind']}")(event)

    def _on_warning(self, event: Event) -> None:
        print_warning(event["text"])

    def _on_message(self, event: Event) -> None:
        if not self._quiet and event["text"] != self._last:
            console.print(Text(event["text"]), style="dim", soft_wrap=True)
        self._last = event["text"]

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
        rate = event["examples"] / max(event["seconds"]["total"], 1e-9)
        median = "-" if event["median"] is None else f"{event['median']:.4f}"
        text = f"best {event['best']:.4f}  median {median}  {rate:,.0f} examples/s"
        return text if self._bar else f"{text}  at most {event['seconds_left']:.0f} s left"


def stop_request() -> StopRequest:
    """A context in which Ctrl-C and SIGTERM ask for a stop, and the user is told so."""
    return StopRequest(
        lambda: console.print("stopping; results so far are kept (press Ctrl-C again to end immediately)")
    )


@contextlib.contextmanager
def interruptible(notify: Callable[[Event], None]) -> Iterator[Callbacks]:
    """Callbacks that ask to stop after Ctrl-C or SIGTERM."""
    with stop_request() as stop:
        yield Callbacks(notify=notify, stop=lambda: stop.received)


def line_by_line(*, quiet: bool) -> Callable[[Event], None]:
    """A function that prints one line for each finished run of several; if quiet, only warnings."""

    def notify(event: Event) -> None:
        if event["kind"] == "warning":
            print_warning(event["text"])
        elif not quiet and event["kind"] == "unit":
            console.print(f"{event['done']:>4}/{event['of']}  {event['text']}", markup=False, soft_wrap=True)
        elif not quiet and event["kind"] == "message":
            console.print(event["text"], style="dim", markup=False, soft_wrap=True)

    return notify


def results_only() -> AbstractContextManager[Any]:
    """Send what Ray and users' functions print to standard error: standard output is for the result only."""
    return contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def resumable(stopped: str | None = None) -> Iterator[None]:
    """A context for a command that can be interrupted and resumed. `stopped` is the message when it is interrupted."""
    with results_only():
        try:
            yield
        except (Stopped, KeyboardInterrupt):
            rerun = f"stopped; measurements are saved. To resume: {shlex.join(['evoswarm', *sys.argv[1:]])}"
            raise Stopped(stopped or rerun) from None


def print_warning(text: str) -> None:
    """Print a warning on standard error. Text of users and files is never markup."""
    console.print(Text("warning:", style="bold yellow"), Text(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(to_json(value, indent=2) + "\n")
