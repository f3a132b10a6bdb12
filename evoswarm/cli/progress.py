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
    """Shows the events of a run, or of several. A context, for the progress bar of one run on a terminal."""

    def __init__(self, config: RunConfig | None = None, *, quiet: bool = False) -> None:
        """`config` is the run if there is only one. If quiet, show only warnings."""
        self._quiet, self._last = quiet, ""
        self._generations = config.search.max_generations if config else 0
        self._bar: Progress | None = None
        if config and console.is_terminal and not quiet:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(config.name, total=self._generations + 1, state="starting")

    def __enter__(self) -> Reporter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def notify(self, event: Event) -> None:
        """Show an event."""
        match event["kind"]:
            case "warning":
                print_warning(event["text"])
            case _ if self._quiet:
                pass
            case "message" if event["text"] != self._last:
                self._last = event["text"]
                console.print(Text(event["text"]), style="dim", soft_wrap=True)
            case "unit":
                console.print(f"{event['done']:>4}/{event['of']}  {event['text']}", markup=False, soft_wrap=True)
            case "progress" if self._bar:
                self._bar.update(self._task, state=f"{event['phase']} {event['done']}/{event['of']}")
            case "generation":
                self._generation(event)

    def _generation(self, event: Event) -> None:
        rate = event["examples"] / max(event["seconds"]["total"], 1e-9)
        median = "-" if event["median"] is None else f"{event['median']:.4f}"
        front = f"  hypervolume {event['front']['hypervolume']:.4f}" if event["front"] else ""
        line = f"best {event['best']:.4f}  median {median}{front}  {rate:,.0f} examples/s"
        if self._bar:
            self._bar.update(self._task, completed=event["generation"] + 1, state=line)
        else:
            left = f"at most {event['seconds_left']:.0f} s left"
            text = f"generation {event['generation']:>3}/{self._generations}  {line}  {left}"
            console.print(text, soft_wrap=True)


@contextlib.contextmanager
def interruptible(notify: Callable[[Event], None]) -> Iterator[Callbacks]:
    """Callbacks that ask to stop after Ctrl-C or SIGTERM."""
    text = "stopping; results so far are kept (press Ctrl-C again to end immediately)"
    with StopRequest(lambda: console.print(text)) as stop:
        yield Callbacks(notify=notify, stop=stop.noticed)


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
