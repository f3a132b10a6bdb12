"""Who holds a run while its coordinator lives twice: elsewhere again, and still where Ray cannot see it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from evoswarm.callbacks import Callbacks, Event
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.storage.lease import Lease
from evoswarm.storage.remote import Remote

Strings = list[str]


def test_a_coordinator_waits_for_itself_and_says_so(tmp_path: Path) -> None:
    directory, said = RunDirectory(tmp_path), Strings()
    free, held = threading.Event(), threading.Event()

    def old() -> None:
        with directory.lock(session="one"):
            held.set()
            free.wait()

    thread = threading.Thread(target=old)
    thread.start()
    held.wait()

    def message(event: Event) -> None:
        said.append(event["text"])
        free.set()

    with directory.lock(callbacks=Callbacks(message), session="one"):
        thread.join()
    assert len(said) == 1 and "which should end soon; waiting up to 300 s" in said[0]


def test_another_session_is_refused_at_once_and_a_wait_can_be_stopped(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    with directory.lock(session="one"):
        with pytest.raises(UserError, match="another run holds this directory"), directory.lock(session="two"):
            pass
        with pytest.raises(Stopped), directory.lock(Callbacks(stop=lambda: True), session="one"):
            pass


def test_at_a_url_a_coordinator_takes_over_from_itself_at_once(tmp_path: Path) -> None:
    remote = Remote(f"local://{tmp_path}/run")
    remote.write(Lease.name, json.dumps({"host": "elsewhere", "pid": 1, "id": "x", "beat": 1, "session": "s"}).encode())
    said = Strings()
    lease = Lease(remote, Callbacks(lambda event: said.append(event["text"])), session="s")
    lease.take()
    lease.release()
    assert not said
