"""The run directory. A crash at any moment loses nothing that was finished."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.errors import UserError
from evoswarm.loop.lock import acquire, holder
from evoswarm.place import replacing


class RunDirectory:
    """The paths of one run and how its files are written.

    Whole files are written under a temporary name, synced and renamed. Logs are appended line by line and synced;
    readers ignore a torn last line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.inputs = path / "inputs.json"
        self.checkpoints = path / "checkpoints"
        self.generations = path / "generations.jsonl"
        self.timings = path / "timings.jsonl"
        self.warnings = path / "warnings.jsonl"
        self.normalization = path / "normalization.json"
        self.learned = path / "learned.jsonl"
        self.outcomes = path / "outcomes"
        self.summary = path / "summary.json"
        self.recipe = path / "recipe.json"
        self.best = path / "best"
        self.front = path / "front"
        self.report = path / "report.html"
        self.plots = path / "plots"
        self.basis = path / "basis"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()

    def require(self) -> None:
        """
        Raises:
            UserError: there is no run.
        """
        if not self.exists:
            raise UserError(f"{self.path}: not a run directory (no config.yaml)")

    @property
    def finished(self) -> bool:
        """Whether all results are here."""
        return self.summary.exists() and self.recipe.exists() and self.best.is_dir()

    @property
    def held(self) -> bool:
        """Whether a process on this machine holds the lock."""
        try:
            with (self.path / "lock").open(encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def create(self) -> None:
        """Make the folders.

        Raises:
            UserError: the directory cannot be written.
        """
        try:
            for folder in (self.path, self.checkpoints, self.outcomes):
                folder.mkdir(parents=True, exist_ok=True)
            self.write("probe", b"")
            (self.path / "probe").unlink(missing_ok=True)  # another run that is starting here may have removed it
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another `output`") from None

    @contextlib.contextmanager
    def lock(
        self,
        callbacks: Callbacks = SILENT,
        *,
        driver: int | None = None,
        session: str | None = None,
    ) -> Iterator[None]:
        """Hold the directory for one run. The lock ends with the process, even if it is killed.

        Args:
            callbacks: used while waiting.
            driver: process on this machine that the run belongs to. If it has died, the holder will end soon.
            session: id of the coordinator, the same after a restart. It waits for its earlier process.

        Raises:
            UserError: another run holds it.
            Stopped: the callbacks asked to stop.
        """
        with (self.path / "lock").open("a+", encoding="utf-8") as file:
            acquire(file, self.path, session, callbacks)
            file.seek(0)
            file.truncate()
            file.write(holder(driver=driver, session=session))
            file.flush()
            yield

    def write(self, name: str | Path, data: bytes) -> None:
        """Write a whole file atomically and durably. `name` is relative to the run directory."""
        path = self.path / name
        with replacing(path) as file:
            file.write(data)
        _sync_folder(path.parent)

    def write_json(self, name: str | Path, value: Any) -> None:
        """Write a JSON file that a person can read."""
        self.write(name, (to_json(value, indent=2) + "\n").encode())

    def write_lines(self, path: Path, records: Iterable[Any]) -> None:
        """Write a whole JSON-lines file atomically."""
        self.write(path.relative_to(self.path), "".join(map(to_line, records)).encode())


_GENERATION = re.compile(r"gen_(\d+)(?!\d)")


def generation_name(generation: int) -> str:
    """`gen_0003`, in names of files. Padded for people: compare numbers, never names, from 10,000 on."""
    return f"gen_{generation:04}"


def generation_of(name: str) -> int | None:
    """The generation that a file name starts with; None if it names none."""
    match = _GENERATION.match(name)
    return int(match[1]) if match else None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Readable JSON. Escaped if the text has half a surrogate pair, which UTF-8 cannot hold."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if text.encode(errors="ignore").decode() == text else json.dumps(value, indent=indent)


def to_line(record: Any) -> str:
    """A record as a line of a JSON-lines file."""
    return to_json(record) + "\n"


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, durably."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file up to the first torn or damaged line. No records if the file is missing."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict):
            break
        if record:
            records.append(record)
    return records


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
