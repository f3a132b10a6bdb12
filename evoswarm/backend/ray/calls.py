"""The calls in flight of one round of work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from evoswarm.backend.base import Counters, Evaluation
from evoswarm.backend.pieces import Done, describe
from evoswarm.backend.ray.actors import Actors
from evoswarm.backend.ray.grading import Grading
from evoswarm.backend.round import Call, Round
from evoswarm.engine.errors import EngineDied
from evoswarm.errors import UserError
from evoswarm.utility import Outcome

LOOK_SECONDS = 1.0
"""How often to look for scorers that hang: with hundreds of scorers, each look costs as much as several results."""


@dataclass(frozen=True, eq=False)
class Sent:
    """A call that a scorer has, since when, and the reference to its answers if a grader gets them."""

    call: Call
    since: float
    answers: Any


@dataclass
class Calls:
    """Sends slices of a round to scorers, with the weights that particles make, collects the results, and counts."""

    actors: Actors
    round: Round
    counters: Counters
    grading: Grading | None = None
    _moved: dict[int, Any] = field(default_factory=dict)
    _movers: dict[int, int] = field(default_factory=dict)
    _pending: dict[Any, Sent] = field(default_factory=dict)
    _looked: float = 0.0

    def send(self) -> None:
        """Send work to the scorers."""
        scorers = len(self.actors.scorers.actors)
        self.round.join(scorers)
        if self.actors.particles.up and (self.grading is None or self.grading.has_room(scorers)):
            for call in self.round.assign(now=time.monotonic(), absent=self.actors.scorers.absent):
                self._send_call(call)
        if self.grading is not None:
            self.grading.send()
        self.counters.queued = self.round.left

    def _send_call(self, call: Call) -> None:
        jobs = [self.round.jobs[index] for index, _ in call.work]
        for job, (index, _) in zip(jobs, call.work, strict=True):
            if index not in self._moved and job.row is not None:
                mover = self.actors.particles.nearest(index if job.affinity is None else job.affinity)
                self._movers[index] = mover
                self._moved[index] = self.actors.particles.actors[mover].move.remote(job.row)
        moved = [self._moved.get(index) for index, _ in call.work]
        # Scorers get weights, and a row of 1000 terms takes a millisecond to send.
        work = [(replace(job, row=None), number) for job, (_, number) in zip(jobs, call.work, strict=True)]
        scorer, answers = self.actors.scorers.actors[call.worker], None
        if self.grading is None:
            ref = scorer.score.remote(work, *moved)
        else:
            ref, answers = scorer.ask.options(num_returns=2).remote(work, *moved)
        self._pending[ref] = Sent(call, time.monotonic(), answers)

    def collect(self) -> list[Evaluation]:
        """Wait for results. Returns the evaluations that are complete."""
        complete = []
        grading = () if self.grading is None else self.grading.refs
        for ref in self.actors.watch([*self._pending, *grading]):
            if ref in self._pending:
                complete += self._finish(ref, self._pending.pop(ref))
            elif self.grading is not None and ref in self.grading.refs:
                complete += self.grading.finish(ref, self.round)
        self._moved = {index: ref for index, ref in self._moved.items() if self.round.is_open(index)}
        self._restart_hung()
        return complete

    def _finish(self, ref: Any, sent: Sent) -> list[Evaluation]:
        """The evaluations that a finished call completes."""
        call, answered = sent.call, True
        try:
            done: Done[list[Outcome]] = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            if isinstance(error.cause, EngineDied):
                self._restart(call, str(error.cause))
                return []
            if isinstance(error.cause, RayError):
                self._lose_particles(call, describe(error.cause))
                return []
            done, answered = Done([describe(error.cause)] * len(call.work)), False
        except RayError as error:
            self._lose_scorer(call, describe(error))
            return []
        self.counters.scoring += done.scoring
        self.counters.moving += done.installing + done.moving
        self.counters.moved_bytes += done.moved_bytes
        self.counters.tokens += done.tokens
        self.counters.steps += done.steps
        if self.grading is None or not answered:
            return self.round.done(call, done, now=time.monotonic())
        self.round.answered(call, install=done.installing, now=time.monotonic())
        self.grading.add(self.round, call, sent.answers)
        return []

    def _lose_particles(self, call: Call, reason: str) -> None:
        """The weights of a call did not arrive: the particles that make them may be lost."""
        movers = {self._movers[index] for index, _ in call.work if index in self._movers}
        for mover in movers:  # of several, the reason does not say which one it is about
            self.actors.particles.lost(mover, reason if len(movers) == 1 else None)
        self._lose(call, reason)

    def _lose_scorer(self, call: Call, reason: str) -> None:
        """A scorer is lost with its current call. The calls queued behind it go to others too."""
        self.actors.scorers.lost(call.worker, reason)
        self._lose(call, reason)
        for ref, other in list(self._pending.items()):
            if other.call.worker == call.worker:
                del self._pending[ref]
                self._lose(other.call, None)

    def _lose(self, call: Call, reason: str | None) -> None:
        for index, _ in call.work:
            self._moved.pop(index, None)
        self.round.lost(call, reason, now=time.monotonic())

    def _restart(self, call: Call, reason: str) -> None:
        """Kill a scorer's process. Ray restarts it, and it gets no work until it is ready."""
        ray.kill(self.actors.scorers.actors[call.worker], no_restart=False)
        self._lose_scorer(call, reason)

    def _restart_hung(self) -> None:
        """Restart scorers and graders that do not answer in time. Their slices count as lost."""
        limit, now = self.actors.settings.slice_timeout, time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self.grading is not None:
            self.grading.restart_hung()
        for ref, sent in list(self._pending.items()):
            if limit is not None and ref in self._pending and now - sent.since > self.round.patience(sent.call, limit):
                del self._pending[ref]
                self._restart(sent.call, f"no answer within {limit:g} s per slice")
