"""What is under way on the actors, for one round of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from evoswarm.backend.base import Evaluation, Seconds, Traffic
from evoswarm.backend.pace import AHEAD
from evoswarm.backend.ray.actors import Actors
from evoswarm.backend.round import Call, Round
from evoswarm.backend.worker import Done, describe
from evoswarm.engine.errors import EngineDied
from evoswarm.errors import UserError


@dataclass
class Calls:
    """Hands slices of a round out to scorers, with the weights that particles make, and takes in what comes back.

    Attributes:
        crew: the actors.
        round: the work.
        seconds, traffic: are counted up.
        slice_timeout: seconds within which an engine must be done with one slice.
        message: is told what the user should know.
    """

    actors: Actors
    round: Round
    seconds: Seconds
    traffic: Traffic
    slice_timeout: float | None
    message: Callable[[str], None]
    _moved: dict[int, Any] = field(default_factory=dict)
    _movers: dict[int, int] = field(default_factory=dict)
    _pending: dict[Any, tuple[Call, float]] = field(default_factory=dict)

    def hand_out(self) -> None:
        """Give work to the scorers."""
        self.round.join(len(self.actors.scorers.actors))
        if self.actors.particles.up:
            for call in self.round.assign(now=time.monotonic(), absent=self.actors.scorers.absent):
                self._pending[self._send(call)] = call, time.monotonic()
        self.traffic.queued = self.round.left

    def _send(self, call: Call) -> Any:
        jobs = [self.round.jobs[index] for index, _ in call.work]
        for job, (index, _) in zip(jobs, call.work, strict=True):
            if index not in self._moved and job.row is not None:
                mover = self.actors.particles.nearest(index if job.affinity is None else job.affinity)
                self._movers[index] = mover
                self._moved[index] = self.actors.particles.actors[mover].move.remote(job.row)
        moved = [self._moved.get(index) for index, _ in call.work]
        pieces = [(job.key, job.split, piece, job.texts) for job, (_, piece) in zip(jobs, call.work, strict=True)]
        return self.actors.scorers.actors[call.worker].score.remote(pieces, *moved)

    def collect(self) -> list[Evaluation]:
        """Take in what has been scored; returns the evaluations that are whole."""
        whole = []
        for ref in self.actors.watch(list(self._pending)):
            if ref in self._pending:
                whole += self._take_in(ref, self._pending.pop(ref)[0])
        self._moved = {index: ref for index, ref in self._moved.items() if self.round.is_open(index)}
        self._end_hung()
        return whole

    def _take_in(self, ref: Any, call: Call) -> list[Evaluation]:
        """The evaluations that are whole with these slices."""
        try:
            done: Done = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            if isinstance(error.cause, EngineDied):
                self._start_again(call, str(error.cause))
                return []
            if isinstance(error.cause, RayError):
                self._lose_particles(call, describe(error.cause))
                return []
            done = Done([describe(error.cause)] * len(call.work), 0.0, 0.0)
        except RayError as error:
            self._lose_scorer(call, describe(error))
            return []
        self.seconds.scoring += done.scoring
        self.seconds.moving += done.moving
        self.traffic.moved_bytes += done.moved_bytes
        self.traffic.tokens += done.tokens
        return self.round.done(call, done.results, now=time.monotonic())

    def _lose_particles(self, call: Call, reason: str) -> None:
        """The weights of a call did not come: whoever had to make them may be gone."""
        for index in {index for index, _ in call.work} & self._movers.keys():
            self.actors.particles.lost(self._movers[index])
        self._lose(call, reason)

    def _lose_scorer(self, call: Call, reason: str) -> None:
        """A scorer is gone with the call that it was at; what waited behind it goes elsewhere too."""
        self.actors.scorers.lost(call.worker)
        self._lose(call, reason)
        for ref, (other, _) in list(self._pending.items()):
            if other.worker == call.worker:
                del self._pending[ref]
                self._lose(other, None)

    def _lose(self, call: Call, reason: str | None) -> None:
        for index, _ in call.work:
            self._moved.pop(index, None)
        self.round.lost(call, reason, now=time.monotonic())

    def _start_again(self, call: Call, reason: str) -> None:
        """End a scorer's process; Ray starts another one, which gets nothing until it is up."""
        ray.kill(self.actors.scorers.actors[call.worker], no_restart=False)
        self._lose_scorer(call, reason)

    def _end_hung(self) -> None:
        """Start scorers again that have not answered for too long; their slices go out again, as lost."""
        limit = self.slice_timeout
        if limit is None:
            return
        now = time.monotonic()
        for ref, (call, since) in list(self._pending.items()):
            if ref in self._pending and now - since > AHEAD * len(call.work) * limit:
                del self._pending[ref]
                self.message(f"scorer {call.worker} has not answered within {limit:g} s per slice, starting it again")
                self._start_again(call, f"no answer within {limit:g} s per slice")
