"""Engines release GPU memory between generations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from evoswarm.backend.pieces import describe
from evoswarm.backend.ray.actor_group import ActorGroup


def put_to_sleep(
    scorers: ActorGroup,
    watch: Callable[[list[Any]], Sequence[Any]],
    *,
    patience: float | None,
    message: Callable[[str], None],
) -> None:
    """Let the engines of all running scorers sleep, and restart those that fail to.

    Args:
        scorers: the scorer actors.
        watch: waits for some of the given results, and returns them.
        patience: seconds that all may take together; None: no limit.
        message: receives a message for each restarted scorer.
    """
    began = time.monotonic()
    asked = {scorers.actors[number].sleep.remote(): number for number in scorers.up}
    while asked:
        late = patience is not None and time.monotonic() - began > patience
        for ref in list(asked) if late else watch(list(asked)):
            number = asked.pop(ref)
            try:
                ray.get(ref, timeout=0)
            except RayError as error:
                if not isinstance(error, RayActorError):
                    message(f"scorer {number} does not go to sleep, restarting it ({describe(error)})")
                    ray.kill(scorers.actors[number], no_restart=False)
                scorers.lost(number)
