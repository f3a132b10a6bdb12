"""The lock of a run directory: at most one process writes to it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

from evoswarm.callbacks import Callbacks
from evoswarm.errors import UserError

LOCK_WAIT_SECONDS = 90.0
"""How long to wait for the lock of a run whose driver died: Ray ends the workers of a lost head after a minute."""
GLANCE_SECONDS = 0.5
"""How long to wait for a holder that is alive: the last run of this process, while `status` tests the lock."""
CUT_OFF_SECONDS = 300.0
"""How long a restarted coordinator waits for the lock of its earlier process on a node that Ray has lost."""


def holder(*, driver: int | None, session: str | None) -> str:
    """The content of the lock file: who holds it."""
    found = {"host": socket.gethostname(), "pid": os.getpid(), "driver": driver or os.getpid()}
    return json.dumps(found | ({"session": session} if session else {}))


def acquire(file: IO[str], path: Path, session: str | None, callbacks: Callbacks) -> None:
    """Lock the open lock file of the run directory `path`; see `RunDirectory.lock`."""
    start, said = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            file.seek(0)
            found = _read_holder(file.read())
            own = session is not None and found.get("session") == session
            patience = CUT_OFF_SECONDS if own else LOCK_WAIT_SECONDS if _orphaned(found) else GLANCE_SECONDS
            who = f"process {found['pid']} on {found['host']}" if found else "another process"
            if time.monotonic() - start >= patience:
                raise UserError(
                    f"{path}: another run holds this directory ({who}); wait for it, stop it, or change `name`"
                ) from None
            if not said and patience > GLANCE_SECONDS:
                callbacks.message(f"{path} is still held by {who}, which should end soon; waiting up to {patience:g} s")
                said = True
            callbacks.sleep(0.2)


def _read_holder(text: str) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and holder.keys() >= {"host", "pid", "driver"} else {}


def _orphaned(holder: dict[str, Any]) -> bool:
    """Whether the holder, or its driver, is gone although its lock still exists."""
    if not holder:
        return True
    if holder["host"] != socket.gethostname():
        return False
    return not all(Path(f"/proc/{holder[key]}").exists() for key in ("pid", "driver"))
