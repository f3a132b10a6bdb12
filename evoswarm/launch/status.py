"""The status file: how far a run is, as JSON. The run writes it; `status`, `stop` and the jobs of a cluster read it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from evoswarm.callbacks import Callbacks, Event
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.directory import RunDirectory, to_json
from evoswarm.place import is_url, replacing
from evoswarm.storage.cache import local_copy
from evoswarm.storage.lease import is_held

FILE = "status.json"
RECENT = 5
"""Number of generations whose pace predicts the remaining time."""
PROGRESS_SECONDS = 1.0
"""Shortest time between two updates within a generation."""
State = Literal["pending", "starting", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Status:
    """How far a run is.

    Attributes:
        state: a `stopped` or `failed` run can be resumed.
        generation: the last finished generation; None before the first.
        generations: the highest possible generation (search.max_generations); None if unknown.
        phase: what is being evaluated now, with `done` evaluations out of `of`.
        best: utility of the global best on validation.
        seconds_left: until the last generation at the recent pace; patience may end the run earlier.
        error: why the run failed.
        time: when this was written (UTC).
        host: name of the machine that runs the loop.
        pid: id of the process that runs the loop.
    """

    state: State
    generation: int | None = None
    generations: int | None = None
    phase: str | None = None
    done: int | None = None
    of: int | None = None
    best: float | None = None
    examples_per_second: float | None = None
    seconds_left: float | None = None
    error: str | None = None
    time: str | None = None
    host: str | None = None
    pid: int | None = None

    def __str__(self) -> str:
        parts: list[str] = [self.state]
        if self.generation is not None and self.best is not None:
            last = "" if self.generations is None else f"/{self.generations}"
            parts += [f"generation {self.generation}{last}", f"best {self.best:.4f}"]
        if self.examples_per_second is not None:
            parts.append(f"{self.examples_per_second:,.0f} examples/s")
        if self.seconds_left is not None and self.state == "running":
            parts.append(f"at most {self.seconds_left:.0f} s left")
        return ", ".join(parts)


def job_file(job: str) -> str:
    """Name of the status file of a job of a Ray cluster, in the log folder of its driver's node."""
    return f"evoswarm-{job}.{FILE}"


def parse_status(text: str | bytes, source: str) -> Status:
    """The status in the text of a status file.

    Raises:
        UserError: the text is torn, or another version of evoswarm wrote it.
    """
    try:
        return TypeAdapter(Status).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(
            f"{source}: is damaged, or from another version of evoswarm ({problem}); resume the run to write it again"
        ) from None


def read_status(path: Path) -> Status:
    """The status in a file.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    try:
        return parse_status(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: holds no {FILE}; give the directory or URL of a run") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def status_of_directory(place: str) -> Status:
    """The status of the run in a directory, or at a URL. A run whose process has died is `stopped`.

    Raises:
        UserError: there is no run, or its status file cannot be read.
    """
    folder = local_copy(place, light=True)
    status = read_status(folder / FILE)
    active = is_held(place) if is_url(place) else RunDirectory(folder).held
    return replace(status, state="stopped") if status.state in ("starting", "running") and not active else status


class StatusWriter:
    """Keeps a status file up to date with the events of a run. A context: its end is the end of the run.

    A status that cannot be written never ends a run.
    """

    def __init__(self, path: Path, *, generations: int, callbacks: Callbacks, start: Path | None = None) -> None:
        """Continues from the status in `start` (default: `path`). `callbacks` get events after the file is written."""
        self._path, self._inner = path, callbacks
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        before = Status("starting")
        with contextlib.suppress(UserError):
            before = read_status(start or path)
        self._status = Status(
            "starting", before.generation, generations, best=before.best, host=socket.gethostname(), pid=os.getpid()
        )
        self._written = 0.0

    def __enter__(self) -> Callbacks:
        """Callbacks for the run."""
        self._write()
        return self._inner.after(self._follow)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._update(phase=None, done=None, of=None, seconds_left=None)
        if error is None:
            self._update(state="finished")
        elif isinstance(error, Stopped | KeyboardInterrupt):
            self._update(state="stopped")
        else:
            self._update(state="failed", error=str(error) or type(error).__name__)
        self._write()

    def _follow(self, event: Event) -> None:
        if event["kind"] == "progress":
            self._update(state="running", phase=event["phase"], done=event["done"], of=event["of"])
            if time.monotonic() - self._written >= PROGRESS_SECONDS:
                self._write()
        elif event["kind"] == "generation":
            self._generation(event)
            self._write()
            event["seconds_left"] = self._status.seconds_left

    def _generation(self, event: Event) -> None:
        self._recent.append((event["examples"], event["seconds"]["total"]))
        examples, seconds = map(sum, zip(*self._recent, strict=True))
        left = (self._status.generations or 0) - event["generation"]
        self._update(
            state="running",
            generation=event["generation"],
            best=event["best"],
            examples_per_second=examples / seconds if seconds else None,
            seconds_left=seconds / len(self._recent) * left,
        )

    def _update(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)

    def _write(self) -> None:
        self._written = time.monotonic()
        self._update(time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        with contextlib.suppress(OSError), replacing(self._path) as file:
            file.write((to_json(asdict(self._status), indent=2) + "\n").encode())
