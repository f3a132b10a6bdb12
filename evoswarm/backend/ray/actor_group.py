"""Actors of one kind: which of them are up, and what is known about the others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from evoswarm.backend.pieces import describe
from evoswarm.backend.ray.start import Start
from evoswarm.callbacks import Callbacks
from evoswarm.errors import ClusterError, UserError


class ActorGroup:
    """Numbered actors. Those that are not up are asked `ready`; they answer once they have resources and have started.

    Ray restarts a lost actor wherever there are resources, and repeats `ready` until it has started. Other calls to it
    fail.

    Attributes:
        kind: "particle", "scorer" or "grader".
        actors: all actors, by number.
        absent: actors that cannot be given work now, and the time since when.
        why_absent: why the last actor that could not start did not.
        mode: of the last engine that started, see `EngineConfig.mode`.
    """

    def __init__(self, kind: str, callbacks: Callbacks, *, told: Callable[[], tuple[Any, ...]] = tuple) -> None:
        """`told` gives the arguments of `ready`."""
        self.kind, self._callbacks, self._told = kind, callbacks, told
        self.actors: list[ActorHandle] = []
        self.absent: dict[int, float] = {}
        self.why_absent = ""
        self.mode: str | None = None
        self._pending: dict[Any, int] = {}
        self._notices: set[str] = set()
        self._reported_up = 0

    @property
    def up(self) -> list[int]:
        """The actors that can be given work."""
        return [number for number in range(len(self.actors)) if number not in self.absent]

    def nearest(self, number: int) -> int:
        """The actor with this number (modulo their count), or else the next one that is up."""
        size = len(self.actors)
        order = [(number + step) % size for step in range(size)]
        return next((n for n in order if n not in self.absent), order[0])

    def idle_since(self) -> float | None:
        """When the last actor was lost: None while one is up, minus infinity if none will come up."""
        if len(self.absent) < len(self.actors):
            return None
        return max(self.absent.values()) if self._pending else -math.inf

    def add(self, actor: ActorHandle) -> None:
        """Add an actor that is starting."""
        self.actors.append(actor)
        self.lost(len(self.actors) - 1)

    def lost(self, number: int, reason: str | None = None) -> None:
        """Record that an actor is not up; with a reason, say so."""
        if number not in self.absent:
            if reason is not None:
                self._callbacks.message(f"{self.kind} {number} was lost ({reason})")
            self.absent[number] = time.monotonic()
            self._pending[self.actors[number].ready.options(max_task_retries=-1).remote(*self._told())] = number

    @property
    def pending(self) -> list[Any]:
        """Answers of `ready` that have not arrived."""
        return list(self._pending)

    def take_in(self, refs: Collection[Any], *, starting: bool = False) -> None:
        """Process answers of `ready`.

        Args:
            refs: results of any kind that have arrived.
            starting: whether an actor that cannot start ends the run; otherwise the run continues without it.

        Raises:
            UserError, ClusterError: an actor cannot start.
        """
        for ref in refs:
            number = self._pending.pop(ref, None)
            if number is not None:
                self._answered(number, ref, starting)
        up = len(self.up)
        if up != self._reported_up and not starting:
            self._callbacks.message(f"{up} of {len(self.actors)} {self.kind}s are up")
        self._reported_up = up

    def _answered(self, number: int, ref: Any, starting: bool) -> None:
        try:
            start: Start = ray.get(ref)
        except RayError as error:  # Ray will not restart it
            start = Start(describe(error))
        if start.error is not None:
            self._failed(number, start, starting)
            return
        del self.absent[number]
        self.mode = start.mode
        for notice in start.notices:
            if notice not in self._notices:
                self._notices.add(notice)
                self._callbacks.warning(notice)

    def _failed(self, number: int, start: Start, starting: bool) -> None:
        """End the run, or continue without an actor that cannot start."""
        if starting and start.by_user:
            raise UserError(start.error)
        text = f"{self.kind} {number} could not start ({start.error})"
        if starting:
            raise ClusterError(f"{text}; rerun the command to resume")
        ray.kill(self.actors[number])  # frees its resources
        self.why_absent = text
        self._callbacks.warning(f"{text}; continuing without it")


def result_of(ref: Any, *, who: str = "an actor") -> Any:
    """The result of a call to an actor.

    Raises:
        ClusterError: the actor was lost.
        Exception: what the actor raised.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if not isinstance(error.cause, RayActorError):
            raise error.cause from None
        lost: BaseException = error.cause
    except RayError as error:
        lost = error
    raise ClusterError(f"{who} was lost ({describe(lost)}); rerun the command to resume")
