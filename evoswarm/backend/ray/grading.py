"""The answers that graders hold, and those that wait for one."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from evoswarm.backend.base import Counters, Evaluation
from evoswarm.backend.grade import Graded
from evoswarm.backend.learned import Learned
from evoswarm.backend.pace import AHEAD
from evoswarm.backend.pieces import describe
from evoswarm.backend.ray.actor_group import ActorGroup
from evoswarm.backend.ray.grader import NotReady
from evoswarm.backend.ray.learning import Learning
from evoswarm.backend.ray.wait import arrived
from evoswarm.backend.round import Call, Round
from evoswarm.errors import ClusterError

END_SECONDS = 30.0
"""How long to wait, at the end, for answers that are graded but not needed: what they taught may have cost money."""


@dataclass(frozen=True, eq=False)
class Answered:
    """An answered call of a round. The answers are a reference: they travel from the scorer to the grader."""

    round: Round
    call: Call
    answers: Any
    grader: int = -1


@dataclass
class Grading:
    """Sends answers to graders, collects outcomes, and records what was learned.

    The answers of a grader that is lost or hangs are graded again: they need no engine.

    Attributes:
        graders: the grader actors.
        at_once: how many calls a grader grades at once.
        limit: seconds for which a grader may finish nothing while it has answers; None: any.
        retries: how often the same answers may be lost with their grader.
    """

    graders: ActorGroup
    at_once: int
    limit: float | None
    retries: int
    learned: Learned
    counters: Counters
    _waiting: deque[Answered] = field(default_factory=deque)
    _held: dict[Any, Answered] = field(default_factory=dict)
    _since: dict[int, float] = field(default_factory=dict)
    _losses: Counter[Call] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._learning = Learning(self.graders, self.learned)

    @property
    def refs(self) -> Collection[Any]:
        """The results that have not arrived."""
        return self._held.keys() | self._learning.refs

    def start(self) -> None:
        """Start a round. What graders still hold of an earlier one, for a job that failed, only teaches them."""
        self._waiting.clear()
        self._losses.clear()

    def has_room(self, scorers: int) -> bool:
        """Whether this many scorers may go on answering: graders that are slower than they must not fall behind."""
        return len(self._waiting) + len(self._held) < AHEAD * (scorers + self.at_once * len(self.graders.actors))

    def add(self, round: Round, call: Call, answers: Any) -> None:
        """Grade the answers to a call of a round."""
        self._waiting.append(Answered(round, call, answers))
        self.send()

    def send(self) -> None:
        """Send waiting answers to the graders that hold the fewest, and ask those that hold any what they learn."""
        self._learning.ask({answered.grader for answered in self._held.values()})
        load = Counter({number: 0 for number in self.graders.up})
        load.update(answered.grader for answered in self._held.values())
        while self._waiting and self.graders.up:
            number = min(self.graders.up, key=lambda grader: load[grader])
            if load[number] >= AHEAD * self.at_once:
                return
            if not load[number]:
                self._since[number] = time.monotonic()
            load[number] += 1
            waiting = self._waiting.popleft()
            ref = self.graders.actors[number].grade.remote(waiting.answers)
            self._held[ref] = replace(waiting, grader=number)

    def finish(self, ref: Any, round: Round) -> list[Evaluation]:
        """The evaluations of the round that a result completes.

        Raises:
            UserError: a problem that would stop every particle.
            ClusterError: answers were lost with their grader too often.
        """
        if ref in self._learning.refs:
            self._learning.take(ref)
            return []
        answered = self._held[ref]
        call = answered.call
        try:
            graded: Graded = ray.get(ref)
        except RayActorError as error:
            self._lose(answered.grader, describe(error))
            return []
        except RayTaskError as error:
            if isinstance(error.cause, NotReady):
                self._lose(answered.grader, str(error.cause))
                return []
            if isinstance(error.cause, RayError):
                return self._answers_lost(ref, error.cause)
            graded = Graded([describe(error.cause)] * len(call.work))
        except RayError as error:
            return self._answers_lost(ref, error)
        del self._held[ref]
        self._since[answered.grader] = time.monotonic()
        self._losses.pop(call, None)
        self.counters.grading += graded.seconds
        self._learning.settle(answered.grader)
        self.learned.add(graded.learned)
        return answered.round.graded(call, graded.checked()) if answered.round is round else []

    def _answers_lost(self, ref: Any, error: RayError) -> list[Evaluation]:
        """The answers are gone with the node that had them: an engine has to answer again."""
        answered = self._held.pop(ref)
        answered.round.answers_lost(answered.call, describe(error))
        return []

    def _lose(self, grader: int, reason: str) -> None:
        """A grader is lost; its answers wait for another one, or for it. The oldest ones may have been the reason."""
        self.graders.lost(grader, reason)
        lost = {ref: answered for ref, answered in self._held.items() if answered.grader == grader}
        for ref in lost:
            del self._held[ref]
        self._waiting.extendleft(reversed(lost.values()))
        oldest = next(iter(lost.values())).call
        self._losses[oldest] += 1
        if self._losses[oldest] > self.retries:
            raise ClusterError(f"answers were lost {self._losses[oldest]} times with their grader ({reason})")

    def restart_hung(self) -> None:
        """Restart graders that have finished nothing for too long."""
        if self.limit is None:
            return
        for number in {answered.grader for answered in self._held.values()}:
            if time.monotonic() - self._since[number] > self.limit:
                ray.kill(self.graders.actors[number], no_restart=False)
                self._lose(number, f"nothing was graded within {self.limit:g} s")

    def close(self) -> None:
        """Forget all answers, close the utility in all graders, and keep what they have learned."""
        for number in self.graders.up:
            self._learning.settle(number)
        for graded in arrived(list(self._held), seconds=END_SECONDS):
            self.learned.add(graded.learned)
        closing = [self.graders.actors[number].close.remote() for number in self.graders.up]
        for learned in arrived(closing, seconds=END_SECONDS):
            self.learned.add(learned)
