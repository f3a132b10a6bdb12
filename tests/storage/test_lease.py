"""The lease of a run at a URL: one run at a time, also if two start at the same moment."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from storage_helpers import GONE, config_of

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.errors import UserError
from evoswarm.storage import lease
from evoswarm.storage.remote import Remote
from evoswarm.storage.swap import swap


def test_one_url_has_one_run_at_a_time(tmp_path: Path, bucket: str) -> None:
    config = config_of(tmp_path, bucket)
    remote = Remote(str(config.place))
    holder = lease.Lease(remote, Callbacks())
    holder.take()
    try:
        with pytest.raises(UserError, match=r"another run holds this directory \(process \d+ on "):
            evoswarm.run(config)
        assert lease.is_held(str(config.place))
    finally:
        holder.release()
    remote.write("lease.json", json.dumps({"host": "elsewhere", "pid": 1, "id": "x", "beat": 3}).encode())
    assert not lease.is_held(str(config.place))
    began = time.monotonic()
    evoswarm.run(config)  # nobody writes that lease: after some silence it is taken
    assert time.monotonic() - began >= lease.SILENCE_SECONDS


def contend(bucket: str, name: str) -> list[bool]:
    """Two owners take the lease of one URL at the same moment; returns which of them got it."""
    barrier = threading.Barrier(2)
    leases = [lease.Lease(Remote(f"{bucket}/{name}"), Callbacks()) for _ in range(2)]

    def take(owner: lease.Lease) -> bool:
        barrier.wait()
        try:
            owner.take()
        except UserError as error:
            assert "another run" in str(error)
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        taken = list(threads.map(take, leases))
    for owner, won in zip(leases, taken, strict=True):
        if won:
            owner.release()
    return taken


def test_of_two_runs_that_start_at_the_same_moment_exactly_one_gets_the_lease(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a conditional write, the two would need this long to notice each other.
    monkeypatch.setattr(lease, "RACE_SECONDS", 0)
    assert [sum(contend(bucket, f"fresh-{i}")) for i in range(20)] == [1] * 20


def test_of_two_runs_that_take_over_a_dead_owners_lease_exactly_one_gets_it(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RACE_SECONDS", 0)
    taken = []
    for i in range(20):
        stale = json.dumps({"host": socket.gethostname(), "pid": GONE, "id": "x", "beat": 3}).encode()
        Remote(f"{bucket}/stale-{i}").write("lease.json", stale)
        taken.append(sum(contend(bucket, f"stale-{i}")))
    assert taken == [1] * 20


def test_a_conditional_write_replaces_only_what_the_writer_has_read(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/swap"
    assert swap(url, "x", b"one", expected=None) is True
    assert swap(url, "x", b"two", expected=None) is False
    assert swap(url, "x", b"two", expected=b"zero") is False
    assert swap(url, "x", b"two", expected=b"one") is True
    assert swap(url, "y", b"two", expected=b"one") is False
    assert Remote(url).read("x") == b"two"
    assert swap(f"local://{tmp_path}/swap", "x", b"one", expected=None) is None


def test_a_coordinator_takes_over_from_its_own_last_process(bucket: str) -> None:
    first, second = (lease.Lease(Remote(f"{bucket}/own"), Callbacks(), session="one") for _ in range(2))
    first.take()
    began = time.monotonic()
    second.take()
    assert time.monotonic() - began < lease.SILENCE_SECONDS
    second.release()
    first.release()


def test_a_run_that_lost_its_lease_ends(tmp_path: Path, bucket: str) -> None:
    config = config_of(tmp_path, bucket, "engine.delay=0.3")
    remote = Remote(str(config.place))

    def notify(event: dict) -> None:
        if event["kind"] == "generation" and event["generation"] == 0:
            remote.write("lease.json", json.dumps({"host": "elsewhere", "pid": 1, "id": "x", "beat": 1}).encode())

    with pytest.raises(UserError, match="another run has taken over this directory"):
        evoswarm.run(config, callbacks=Callbacks(notify=notify))
