"""Who holds a run at a URL, where no file can be locked: a small file that its holder writes again and again."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evoswarm.errors import Stopped, UserError
from evoswarm.storage.remote import Remote, StorageError

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 4 * BEAT_SECONDS
"""A holder that has written nothing for so long is gone. Measured by whoever waits: no two clocks are compared."""


class Lease:
    """One holder at a time of a URL. Storage has no lock: two that begin together find out by reading again."""

    name = "lease.json"

    def __init__(
        self, remote: Remote, *, message: Callable[[str], None], stop: Callable[[], bool], session: str | None = None
    ) -> None:
        """
        Args:
            remote: the URL.
            message: takes lines for the user.
            stop: asked while waiting whether to stop.
            session: names the coordinator, however often and wherever it is started. It takes over from itself.
        """
        self._session = session
        self._remote, self._message, self._stop = remote, message, stop
        self._id, self._beats = secrets.token_hex(8), 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="evoswarm-lease", daemon=True)
        self.lost = False

    def take(self) -> None:
        """Become the holder; waits where the last one may have died.

        Raises:
            UserError: another run holds it.
        """
        before = self._remote.read(self.name)
        own = self._session is not None and _parse(before).get("session") == self._session
        if before is not None and not own and not _dead_here(_parse(before)):
            self._message(f"{self._remote.url} was held by {_who(_parse(before))}; seeing whether that still runs")
            self._outlive(before)
        self._write()
        time.sleep(0.5)
        if _parse(self._remote.read(self.name)).get("id") != self._id:
            raise UserError(f"{self._remote.url}: another run began here at the same moment; this one ends")
        self._thread.start()

    def release(self) -> None:
        """Let others have it."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * BEAT_SECONDS)
        if not self.lost:
            try:
                self._remote.delete(self.name)
            except StorageError as error:
                self._message(f"{error}; the next run here waits for {SILENCE_SECONDS:g} s first")

    def _outlive(self, before: bytes) -> None:
        """Wait for as long as a holder may be silent."""
        until = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < until:
            if self._stop():
                raise Stopped
            time.sleep(1)
            now = self._remote.read(self.name)
            if now is None:
                return
            if now != before:
                who = _who(_parse(now))
                raise UserError(
                    f"{self._remote.url}: another run holds this directory ({who}); wait for it, stop it, or change "
                    "`name`"
                )

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            try:
                found = self._remote.read(self.name)
                if found is not None and _parse(found).get("id") != self._id:
                    self.lost = True
                    return
                self._write()
            except UserError:
                continue  # storage that is gone is for the run itself to notice

    def _write(self) -> None:
        self._beats += 1
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "id": self._id, "beat": self._beats}
        self._remote.write(self.name, json.dumps(holder | {"session": self._session}).encode())


def is_held(url: str) -> bool:
    """Whether a run works at a URL now; watches for a beat where there is a sign of one."""
    remote = Remote(url)
    before = remote.read(Lease.name)
    if before is None or _dead_here(_parse(before)):
        return False
    time.sleep(1.5 * BEAT_SECONDS)
    return remote.read(Lease.name) not in (None, before)


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        holder = json.loads(data or b"{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is gone."""
    return holder.get("host") == socket.gethostname() and not Path(f"/proc/{holder.get('pid')}").exists()


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another run"
