"""Actors of one kind: which of them are up, and what is known of the others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray._private.state import state as cluster_state  # the public list of actors needs the dashboard
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from evoswarm.backend.worker import describe
from evoswarm.errors import ClusterError, UserError

ASK_SECONDS = 1.0
"""How long an actor that did not answer is left alone before it is asked again."""


class Team:
    """Numbered actors. One that is not up is asked whether it is; it answers when it has a place and has started.

    Ray starts an actor that was lost again by itself, wherever there is room; calls to it fail until then.

    Attributes:
        actors: all of them, by number.
        absent: those that cannot be given work now, with the time since when.
    """

    def __init__(self, kind: str, message: Callable[[str], None]) -> None:
        """
        Args:
            kind: "particle" or "scorer".
            message: is told what the user should know.
        """
        self.kind, self._message = kind, message
        self.actors: list[ActorHandle] = []
        self.absent: dict[int, float] = {}
        self.why_not = ""
        self._asked: dict[Any, int] = {}
        self._ask_at: dict[int, float] = {}
        self._told: set[str] = set()
        self._said_up = 0

    @property
    def up(self) -> list[int]:
        """The actors that can be given work."""
        return [number for number in range(len(self.actors)) if number not in self.absent]

    def nearest(self, number: int) -> int:
        """The actor of this number, round the table, or else the next one that is up."""
        size = len(self.actors)
        order = [(number + step) % size for step in range(size)]
        return next((n for n in order if n not in self.absent), order[0])

    def idle_since(self) -> float | None:
        """Since when none is up; infinitely long ago if none will be; None while one is."""
        if len(self.absent) < len(self.actors):
            return None
        return max(self.absent.values()) if self._ask_at else -math.inf

    def add(self, actor: ActorHandle) -> None:
        """One more actor, which is starting."""
        number = len(self.actors)
        self.actors.append(actor)
        self.absent[number], self._ask_at[number] = time.monotonic(), 0.0

    def lost(self, number: int) -> None:
        """An actor did not answer."""
        if number not in self.absent:
            now = time.monotonic()
            self.absent[number], self._ask_at[number] = now, now + ASK_SECONDS

    def asked(self) -> list[Any]:
        """Answers to wait for; asks those again whose time it is."""
        now, waiting = time.monotonic(), set(self._asked.values())
        for number, when in self._ask_at.items():
            if number not in waiting and when <= now:
                self._asked[self.actors[number].ready.remote()] = number
        return list(self._asked)

    def take_in(self, refs: Collection[Any], *, starting: bool = False) -> None:
        """Take in answers.

        Args:
            refs: what has come, of any kind.
            starting: an actor that cannot start ends the run; otherwise it is left out from now on.

        Raises:
            UserError, ClusterError: an actor cannot start.
        """
        for ref in refs:
            number = self._asked.pop(ref, None)
            if number is not None:
                self._answered(number, ref, starting)
        up = len(self.up)
        if up != self._said_up and not starting:
            self._message(f"{up} of {len(self.actors)} {self.kind}s are up")
        self._said_up = up

    def _answered(self, number: int, ref: Any, starting: bool) -> None:
        try:
            notice = raising(ref)
        except (UserError, ClusterError) as problem:
            if self._will_start_again(number):
                self._ask_at[number] = time.monotonic() + ASK_SECONDS
                return
            if starting:
                raise
            del self._ask_at[number]
            self.why_not = f"{self.kind} {number} did not start: {problem}"
            self._message(f"{self.why_not}; going on without it")
            return
        del self.absent[number], self._ask_at[number]
        if notice and notice not in self._told:
            self._told.add(notice)
            self._message(notice)

    def _will_start_again(self, number: int) -> bool:
        entry = cluster_state.actor_table(self.actors[number]._actor_id.hex())
        return bool(entry) and entry["State"] != "DEAD"


def raising(ref: Any) -> Any:
    """`ray.get` that raises what the actor raised.

    Raises:
        UserError: raised by the actor, or while it was starting.
        ClusterError: the actor was lost.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RayActorError):
            raise ClusterError(f"an actor was lost ({describe(error.cause)}); resume with --resume auto") from None
        raise error.cause from None
    except RayError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        lines = [line.strip() for line in str(error).splitlines() if "UserError:" in line]
        if lines:  # raised while the actor was starting
            raise UserError(lines[-1].split("UserError:", 1)[1].strip()) from None
        raise ClusterError(f"an actor was lost ({describe(error)}); resume with --resume auto") from None
