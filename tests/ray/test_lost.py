"""A lost actor is one line, and what Ray prints about it is not shown. Hand-written actors and errors."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import ray._private.worker
from ray import JobID

from evoswarm.backend.ray.actor_group import ActorGroup
from evoswarm.backend.ray.private import print_errors_in_one_line
from evoswarm.callbacks import Callbacks


class Ready:
    """The method `ready` of an actor."""

    def options(self, **options: Any) -> Ready:
        return self

    def remote(self) -> object:
        return object()


def test_a_lost_actor_is_said_once_and_with_the_reason() -> None:
    said: list[str] = []
    group = ActorGroup("scorer", Callbacks(lambda event: said.append(event["text"])))
    group.actors = [SimpleNamespace(ready=Ready()), SimpleNamespace(ready=Ready())]  # type: ignore[list-item]
    group.lost(1, "ActorDiedError: it was killed")
    group.lost(1, "ActorDiedError: the next call fails too")
    group.lost(0)
    assert said == ["scorer 1 was lost (ActorDiedError: it was killed)"]
    assert group.up == []


class Published:
    """Stands for Ray's subscriber to errors; stops the listener behind the last one."""

    def __init__(self, stopped: threading.Event, *errors: tuple[str, str]) -> None:
        self._stopped, self._errors = stopped, list(errors)

    def subscribe(self) -> None:
        pass

    def poll(self) -> tuple[bytes, dict[str, Any] | None]:
        if not self._errors:
            self._stopped.set()
            return b"", None
        kind, text = self._errors.pop(0)
        return b"", {"job_id": None, "type": kind, "error_message": text}

    def close(self) -> None:
        pass


def test_of_what_ray_publishes_lost_workers_are_left_out_and_the_rest_is_one_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray._private.worker, "listen_error_messages", ray._private.worker.listen_error_messages)
    print_errors_in_one_line()
    print_errors_in_one_line()
    stopped = threading.Event()
    death = "A worker died or was killed.\nLease ID: 1\nWorker PID: 2"
    kinds = ("worker_died", "ACTOR_DIED", "ACTOR_UNAVAILABLE", "NODE_DIED", "WORKER_DIED")
    errors = [*((kind, death) for kind in kinds), ("other", "\nno disk space\nsecond line")]
    worker = SimpleNamespace(gcs_error_subscriber=Published(stopped, *errors), current_job_id=JobID.nil())
    ray._private.worker.listen_error_messages(worker, stopped)
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 1 and text.strip().endswith("no disk space")
