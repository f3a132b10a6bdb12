"""A run at a URL: it works in a local folder, which is uploaded after every generation.

The URL is authoritative: a run on any machine starts from its files. The checkpoint is uploaded after everything
that it needs, so a reader, or a new start after a crash, always finds the run as it was after some generation.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.errors import UserError
from evoswarm.storage.lease import Lease
from evoswarm.storage.remote import Remote, Stamp, StorageError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_LAST = ("generations.jsonl", "timings.jsonl", "checkpoints/", "recipe.json", "summary.json", "status.json")
"""Uploaded last, in this order."""
_OWN = ("lock",)
_GROWING = "learned.jsonl"
"""Entries that are valid whenever they were written, and that cost money: of two versions, the larger one is kept."""
Shape = tuple[int, int]


class Mirror:
    """A folder and its URL. A context manager: inside it, no other run uses the URL."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        patience: float,
        callbacks: Callbacks = SILENT,
        session: str | None = None,
    ) -> None:
        """The run stops after `patience` seconds of unreachable storage. `session`: see `Lease`."""
        self._remote, self._folder, self._patience = Remote(url), folder, patience
        self._callbacks = callbacks
        self._lease = Lease(self._remote, self._callbacks, session=session)
        self._there: dict[str, Shape] = {}

    def __enter__(self) -> Mirror:
        self._lease.take()
        try:
            self._fetch()
        except BaseException:
            self._lease.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._push()
        except StorageError as error:
            # Resuming on this node continues from here; another node computes the rest again.
            self._callbacks.message(f"{error}; the files that were not uploaded are in {self._folder}")
        finally:
            self._lease.release()

    def sync(self) -> None:
        """Upload what has changed, `patiently`.

        Raises:
            UserError: storage was unreachable for too long, or another run has taken over the URL.
        """
        try:
            patiently(self._push, patience=self._patience, callbacks=self._callbacks)
        except StorageError as error:
            raise StorageError(
                f"{error}; tried for {self._patience:g} s. Everything is kept in {self._folder}: once storage works "
                f"again, run `evoswarm resume {self._remote.url}` on this machine"
            ) from None

    def _fetch(self) -> None:
        """Make the folder a copy of the URL, unless the folder has more of the same run."""
        there = self._remote.stamps()
        if self._is_ahead(there):
            self._callbacks.message(
                f"{self._folder} has more of this run than {self._remote.url}: continuing from there"
            )
            return
        own = (*_OWN, *self._longer(there))
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.name not in own:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        names = [name for name in there if name not in (self._lease.name, *own)]
        if names:
            self._callbacks.message(f"downloading {len(names)} files from {self._remote.url}")
        for name in names:
            self._remote.get(name, self._folder / name)
            self._there[name] = _shape(self._folder / name)

    def _longer(self, there: Mapping[str, Stamp]) -> list[str]:
        """What this run has learned here and could not upload before it was killed."""
        here = self._folder / _GROWING
        larger = here.exists() and here.stat().st_size > there.get(_GROWING, (0, 0))[0]
        return [_GROWING] if larger and self._is_same_run() else []

    def _is_ahead(self, there: Iterable[str]) -> bool:
        """Whether this run could not upload everything when it last ran here. Equal inputs give equal bytes."""
        here = (str(path.relative_to(self._folder)) for path in self._folder.glob("checkpoints/gen_*"))
        newest = max((_by_number(name) for name in there if name.startswith("checkpoints/")), default=[])
        return max(map(_by_number, here), default=[]) > newest and self._is_same_run()

    def _is_same_run(self) -> bool:
        inputs = self._folder / "inputs.json"
        return inputs.exists() and self._remote.read("inputs.json") == inputs.read_bytes()

    def _push(self) -> None:
        if self._lease.lost:
            raise UserError(f"{self._remote.url}: another run has taken over this directory; this one stops")
        here = {name: _shape(self._folder / name) for name in self._names()}
        changed = sorted((name for name in here if self._there.get(name) != here[name]), key=_order)
        for name in changed:
            self._remote.put(self._folder / name, name)
            self._there[name] = here[name]
        for name in set(self._there) - set(here):
            self._remote.delete(name)
            del self._there[name]

    def _names(self) -> list[str]:
        """The run's files. Names of files that are being written start with a dot."""
        paths = (path.relative_to(self._folder) for path in self._folder.rglob("*") if path.is_file())
        return [str(path) for path in paths if path.name not in _OWN and not any(p[0] == "." for p in path.parts)]


def patiently(action: Callable[[], None], *, patience: float, callbacks: Callbacks = SILENT) -> None:
    """Run an idempotent action; if storage is unreachable, retry it with growing pauses.

    Raises:
        StorageError: storage was unreachable for `patience` seconds.
        Stopped: stopped while waiting.
    """
    began, pause, said = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            action()
        except StorageError as error:
            if time.monotonic() - began >= patience:
                raise
            if not said:
                callbacks.message(f"{error}; the run pauses and retries for up to {patience:g} s")
            said = True
        else:
            if said:
                callbacks.message("storage is reachable again")
            return
        callbacks.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def publish(folder: Path, run_dir: Path, url: str, *, patience: float = 0) -> None:
    """Upload a file or folder that a node other than the coordinator's has written."""

    def put() -> None:
        remote = Remote(url)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                remote.put(path, str(path.relative_to(run_dir)))

    patiently(put, patience=patience)


def _order(name: str) -> tuple[int, list[str | int]]:
    rank = next((i for i, last in enumerate(_LAST) if name.startswith(last)), -1)
    return rank, _by_number(name)


def _by_number(name: str) -> list[str | int]:
    """A sort key that compares numbers in names by value: gen_9999 comes before gen_10000."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _shape(path: Path) -> Shape:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
