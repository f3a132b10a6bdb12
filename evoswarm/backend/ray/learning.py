"""Recording what graders learn while they grade."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from evoswarm.backend.learned import KEPT_EVERY, Learned
from evoswarm.backend.ray.actor_group import ActorGroup
from evoswarm.backend.ray.wait import arrived

ANSWER_SECONDS = 10.0
"""How long a grader may take to say what it has learned before outcomes that may depend on it count without."""


class Learning:
    """Asks graders for what they learn in answers that they have not graded yet, so that a kill loses little of it.

    A grader says everything once. So what it was asked for must be recorded before outcomes that depend on it.
    """

    def __init__(self, graders: ActorGroup, learned: Learned) -> None:
        self._graders, self._learned = graders, learned
        self._asked: dict[Any, int] = {}
        self._next = 0.0

    @property
    def refs(self) -> Collection[Any]:
        """What graders were asked for and has not arrived."""
        return self._asked.keys()

    def ask(self, numbers: Collection[int]) -> None:
        """Ask these graders, unless it is too early."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + KEPT_EVERY
        for number in set(numbers) - set(self._asked.values()):
            self._asked[self._graders.actors[number].learned.remote()] = number

    def take(self, ref: Any) -> None:
        """Record what has arrived."""
        del self._asked[ref]
        for learned in arrived([ref], seconds=0):
            self._learned.add(learned)

    def settle(self, number: int) -> None:
        """Record what a grader was asked for, before outcomes of it count."""
        for ref in [ref for ref, asked in self._asked.items() if asked == number]:
            del self._asked[ref]
            for learned in arrived([ref], seconds=ANSWER_SECONDS):
                self._learned.add(learned)
