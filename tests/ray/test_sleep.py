"""Engines that are put to sleep after a round, on a real local cluster."""

from __future__ import annotations

import time

import ray

from evoswarm.backend.ray.actor_group import ActorGroup
from evoswarm.backend.ray.sleep import put_to_sleep
from evoswarm.backend.ray.start import Start
from evoswarm.callbacks import Callbacks


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
    group = ActorGroup("scorer", Callbacks(lambda event: said.append(event["text"])))
    for way in ("sleeps", "raises", "hangs"):
        group.add(Sleeper.remote(way))
    while group.absent:
        group.take_in(ray.wait(group.pending, timeout=1)[0], starting=True)
    put_to_sleep(group, lambda refs: ray.wait(refs, timeout=0.2)[0], patience=1, message=said.append)
    assert group.up == [0] and set(group.absent) == {1, 2}
    assert [line.partition(" (")[0] for line in said if "sleep" in line] == [
        f"scorer {number} does not go to sleep, restarting it" for number in (1, 2)
    ]
    for actor in group.actors:
        ray.kill(actor)
