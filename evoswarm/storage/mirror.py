"""A run at a URL: it works in a folder of this node, and every finished generation goes to the URL.

The URL is what counts: a run begins with what is there, on whatever machine. Within one hand-over the checkpoint goes
after all that it stands on, so that a reader, or a crash at any moment, finds a run as it was after a generation.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from evoswarm.errors import Stopped, UserError
from evoswarm.storage.lease import Lease
from evoswarm.storage.remote import Remote, StorageError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_LAST = ("generations.jsonl", "timings.jsonl", "checkpoints/", "recipe.json", "summary.json")
"""What goes last, in this order."""
_OWN = ("lock",)
Shape = tuple[int, int]


class Mirror:
    """One folder and one URL. A context: inside it the URL is this run's alone."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        patience: float,
        message: Callable[[str], None] = lambda text: None,
        stop: Callable[[], bool] = lambda: False,
        session: str | None = None,
    ) -> None:
        """
        Args:
            url: where the run lives.
            folder: where it works.
            patience: seconds that storage may be gone before the run stops.
            message: takes lines for the user.
            stop: asked while waiting whether to stop.
            session: see `Lease`.
        """
        self._remote, self._folder, self._patience = Remote(url), folder, patience
        self._message, self._stop = message, stop
        self._lease = Lease(self._remote, message=message, stop=stop, session=session)
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
            # Whoever goes on with the run on this node finds the rest here; elsewhere it is computed again.
            self._message(f"{error}; what it lacks is in {self._folder}")
        finally:
            self._lease.release()

    def sync(self) -> None:
        """Hand over what has changed; waits for storage that is gone.

        Raises:
            UserError: it was gone for too long, or another run has taken the URL.
            Stopped: asked to stop while waiting.
        """
        try:
            patiently(self._push, patience=self._patience, message=self._message, stop=self._stop)
        except StorageError as error:
            raise StorageError(
                f"{error}; tried for {self._patience:g} s. Everything is kept in {self._folder}: put storage right, "
                f"then go on with `evoswarm resume {self._remote.url}` on this machine"
            ) from None

    def _fetch(self) -> None:
        """Make the folder what the URL holds, unless it holds more of the same run."""
        there = self._remote.stamps()
        if self._is_ahead(there):
            self._message(f"{self._folder} holds more of this run than {self._remote.url}: going on from there")
            return
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.name not in _OWN:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        names = [name for name in there if name != self._lease.name]
        if names:
            self._message(f"taking over {len(names)} files from {self._remote.url}")
        for name in names:
            self._remote.get(name, self._folder / name)
            self._there[name] = _shape(self._folder / name)

    def _is_ahead(self, there: Iterable[str]) -> bool:
        """A run that lost its storage left more here than it could hand over. (Equal inputs give equal bytes.)"""
        here = [str(path.relative_to(self._folder)) for path in self._folder.glob("checkpoints/gen_*")]
        newest = max((_by_number(name) for name in there if name.startswith("checkpoints/")), default=[])
        inputs = self._folder / "inputs.json"
        if max(map(_by_number, here), default=[]) <= newest or not inputs.exists():
            return False
        return self._remote.read("inputs.json") == inputs.read_bytes()

    def _push(self) -> None:
        if self._lease.lost:
            raise UserError(f"{self._remote.url}: another run has taken this directory over; this one ends")
        here = {name: _shape(self._folder / name) for name in self._names()}
        changed = sorted((name for name in here if self._there.get(name) != here[name]), key=_order)
        for name in changed:
            self._remote.put(self._folder / name, name)
            self._there[name] = here[name]
        for name in set(self._there) - set(here):
            self._remote.delete(name)
            del self._there[name]

    def _names(self) -> list[str]:
        """The run's files; what is being written has a name that begins with a dot."""
        paths = (path.relative_to(self._folder) for path in self._folder.rglob("*") if path.is_file())
        return [str(path) for path in paths if path.name not in _OWN and not any(p[0] == "." for p in path.parts)]


def patiently(
    action: Callable[[], None],
    *,
    patience: float,
    message: Callable[[str], None] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Do something with storage, and do it again with longer and longer pauses where storage is gone.

    Args:
        action: may be done any number of times.
        patience: seconds after which the last error stands.
        message: takes lines for the user.
        stop: asked while waiting whether to stop.

    Raises:
        StorageError: it was gone for too long.
        Stopped: asked to stop while waiting.
    """
    began, pause, said = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            action()
        except StorageError as error:
            if time.monotonic() - began >= patience:
                raise
            if not said:
                message(f"{error}; the run pauses and tries again for up to {patience:g} s")
            said = True
        else:
            if said:
                message("storage answers again")
            return
        _wait(pause, stop)
        pause = min(2 * pause, LONGEST_PAUSE)


def publish(folder: Path, run_dir: Path, url: str, *, patience: float = 0) -> None:
    """Hand over a file or folder of a run that another node than the coordinator's has written."""

    def put() -> None:
        remote = Remote(url)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                remote.put(path, str(path.relative_to(run_dir)))

    patiently(put, patience=patience)


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop():
            raise Stopped
        time.sleep(min(left, 0.2))


def _order(name: str) -> tuple[int, list[str | int]]:
    rank = next((i for i, last in enumerate(_LAST) if name.startswith(last)), -1)
    return rank, _by_number(name)


def _by_number(name: str) -> list[str | int]:
    """A sort key that compares numbers in names by value: gen_9999 comes before gen_10000."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _shape(path: Path) -> Shape:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
