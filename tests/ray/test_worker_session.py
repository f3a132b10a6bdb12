"""A tuning's or comparison's worker waits for the one that it replaces, and ends itself when it is cut off."""

from __future__ import annotations

import threading

import ray

from evoswarm.launch.cut_off import session_of_worker


def test_workers_of_a_job_have_one_session_and_watch_the_head_once(cluster: None) -> None:
    @ray.remote(num_cpus=0)
    def twice() -> tuple[str | None, str | None, list[str]]:
        sessions = session_of_worker(), session_of_worker()
        return *sessions, [thread.name for thread in threading.enumerate() if thread.name == "evoswarm-cut-off"]

    found = ray.get([twice.remote() for _ in range(3)])
    assert {session for first, second, _ in found for session in (first, second)} == {found[0][0]}
    assert found[0][0] and all(watching == ["evoswarm-cut-off"] for *_, watching in found)
    assert session_of_worker() is None  # a driver
