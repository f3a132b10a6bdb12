"""Ownership of a run at a URL, where no file can be locked: a small file that the owner keeps rewriting."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from evoswarm.callbacks import Callbacks
from evoswarm.errors import UserError
from evoswarm.storage.remote import Remote, StorageError
from evoswarm.storage.swap import swap

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 4 * BEAT_SECONDS
"""An owner that has written nothing for this long is gone. The waiting process measures it: no clocks are compared."""
RACE_SECONDS = 0.5
"""Storage without conditional writes: two runs that write a lease within this time notice each other."""


class Lease:
    """One owner of a URL at a time. A lease changes hands by a conditional write, where storage has those."""

    name = "lease.json"

    def __init__(self, remote: Remote, callbacks: Callbacks, *, session: str | None = None) -> None:
        """`session` names a coordinator, and is the same after every restart: it takes over from itself."""
        self._remote, self._callbacks, self._session = remote, callbacks, session
        self._id, self._beats, self._conditional = secrets.token_hex(8), 0, True
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="evoswarm-lease", daemon=True)
        self.lost = False

    def take(self) -> None:
        """Become the owner. If there is a lease, wait to see whether its owner is alive.

        Raises:
            UserError: another run owns it.
        """
        before = self._remote.read(self.name)
        if before is not None and not self._is_own(before) and not _dead_here(_parse(before)):
            self._callbacks.message(
                f"{self._remote.url} was owned by {_who(_parse(before))}; checking whether that still runs"
            )
            self._outlive(before)
        while not self._write(over=before) and self._is_own(before):
            before = self._remote.read(self.name)  # this coordinator's last process wrote once more
        if not self._conditional:
            time.sleep(RACE_SECONDS)
        if _parse(self._remote.read(self.name)).get("id") != self._id:
            raise UserError(f"{self._remote.url}: another run started here at the same time; this one stops")
        self._thread.start()

    def release(self) -> None:
        """Give up ownership."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * BEAT_SECONDS)
        if not self.lost:
            try:
                self._remote.delete(self.name)
            except StorageError as error:
                self._callbacks.message(f"{error}; the next run here waits {SILENCE_SECONDS:g} s before it starts")

    def _outlive(self, before: bytes) -> None:
        """Wait until the owner of this lease counts as gone."""
        until = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < until:
            self._callbacks.sleep(1)
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
                if not self._end.is_set():  # the read may have waited for storage until after the end
                    self._write(over=found)
            except UserError:
                continue  # the run itself handles unreachable storage

    def _is_own(self, data: bytes | None) -> bool:
        return self._session is not None and _parse(data).get("session") == self._session

    def _write(self, *, over: bytes | None) -> bool:
        """Write the lease. With conditional writes, only if it is still `over`. Returns whether it was written."""
        written = swap(self._remote.url, self.name, self._content(), expected=over) if self._conditional else None
        if written is None:
            self._conditional = False  # do not try again: without credentials, every try can take seconds
            self._remote.write(self.name, self._content())
        return written is not False

    def _content(self) -> bytes:
        self._beats += 1
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "id": self._id, "beat": self._beats}
        return json.dumps(owner | {"session": self._session}).encode()


def is_held(url: str) -> bool:
    """Whether a run owns a URL now. If there is a lease, watch whether it changes."""
    remote = Remote(url)
    before = remote.read(Lease.name)
    if before is None or _dead_here(_parse(before)):
        return False
    time.sleep(1.5 * BEAT_SECONDS)
    return remote.read(Lease.name) not in (None, before)


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        owner = json.loads(data or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _dead_here(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that is gone."""
    return owner.get("host") == socket.gethostname() and not Path(f"/proc/{owner.get('pid')}").exists()


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another run"
