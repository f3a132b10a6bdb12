"""Engines that are put to sleep after a round, on a real local cluster."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import ray

from evoswarm.backend.ray.actor_group import ActorGroup
from evoswarm.backend.ray.backend import RayBackend
from evoswarm.backend.ray.start import Start


@ray.remote(num_cpus=0, max_restarts=-1)
class Sleeper:
    """Falls asleep, hangs or raises."""

    def __init__(self, way: str) -> None:
        self.way = way

    def ready(self) -> Start:
        """Answers once it is up."""
        return Start()

    def sleep(self) -> None:
        """Well, not at all, or with an error."""
        if self.way == "hangs":
            time.sleep(1000)
        if self.way == "raises":
            raise RuntimeError("no sleep mode")


def test_a_scorer_that_does_not_go_to_sleep_is_restarted(cluster: None) -> None:
    said: list[str] = []
    group = ActorGroup("scorer", said.append)
    for way in ("sleeps", "raises", "hangs"):
        group.add(Sleeper.remote(way))
    while group.absent:
        group.take_in(ray.wait(group.pending, timeout=1)[0], starting=True)
    backend: Any = object.__new__(RayBackend)
    backend._actors = SimpleNamespace(scorers=group, watch=lambda refs: ray.wait(refs, timeout=0.2)[0])
    backend._settings, backend._message = SimpleNamespace(slice_timeout=0.5), said.append
    backend._config = SimpleNamespace(engine=SimpleNamespace(particles_per_batch=1))
    backend._sleep()
    assert group.up == [0] and set(group.absent) == {1, 2}
    assert [line.partition(" (")[0] for line in said if "sleep" in line] == [
        f"scorer {number} does not go to sleep, restarting it" for number in (1, 2)
    ]
    for actor in group.actors:
        ray.kill(actor)
