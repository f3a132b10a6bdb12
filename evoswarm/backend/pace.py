"""How much work each worker may hold, so that all finish together. Pure: the caller passes the time."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass

AHEAD = 2
"""Calls that a worker holds: while it scores one, the weights of the next one are moving."""
SLOWER = 10.0
"""How many times slower than usual a worker may be before it counts as hung."""
_MEMORY = 0.7
"""Weight of a worker's earlier speed relative to its newest call."""


@dataclass
class _Worker:
    """A worker with its measured speed, without which it is None.

    Attributes:
        seconds: to score a slice.
        install: seconds to install a particle.
        held: slices that it holds.
        installs: calls that it holds and that begin with an install.
        since: when it started its current call.
    """

    seconds: float | None = None
    install: float | None = None
    held: int = 0
    installs: int = 0
    since: float = 0.0


class Pace:
    """Measures the speed of workers and decides how many calls each gets now.

    With plenty of work, every worker holds `ahead` calls. Near the end of a round, each slice goes to the worker that
    will finish it first (the greedy schedule, which is optimal for slices of equal length and no installs). So a slow
    worker does not start a slice that a fast one would finish sooner, a worker does not install a particle to help
    with slices that the one that has it installed would finish sooner, and no worker holds a slice that another could
    start now.

    Speeds are kept from round to round.
    """

    def __init__(self, *, ahead: int = AHEAD) -> None:
        self._ahead = ahead
        self._workers: list[_Worker] = []

    def start(self, workers: int) -> None:
        """Start a round, in which nobody holds anything."""
        for state in self._workers:
            state.held = state.installs = 0
        self.join(workers)

    def join(self, workers: int) -> None:
        """Set the number of workers, which may have grown."""
        self._workers += [_Worker() for _ in range(workers - len(self._workers))]

    def began(self, worker: int, *, now: float, slices: int = 1, installs: bool = False) -> None:
        """A worker received a call."""
        state = self._workers[worker]
        if not state.held:
            state.since = now
        state.held += slices
        state.installs += installs

    def ended(self, worker: int, *, now: float, slices: int = 1, installs: bool = False, install: float = 0.0) -> None:
        """A worker returned scored slices. `install`: seconds of the call that it took to install."""
        state = self._workers[worker]
        state.seconds = _updated(state.seconds, max(0.0, now - state.since - install) / slices)
        if installs or install:
            state.install = _updated(state.install, install)
        self.lost(worker, now=now, slices=slices, installs=installs)

    def lost(self, worker: int, *, now: float, slices: int = 1, installs: bool = False) -> None:
        """A worker holds a call no more. This does not count for its speed."""
        state = self._workers[worker]
        state.held, state.installs, state.since = state.held - slices, state.installs - installs, now

    def room(
        self,
        left: int,
        *,
        now: float,
        each: int = 1,
        installed: Sequence[int] | None = None,
        absent: Collection[int] = (),
    ) -> list[int]:
        """How many calls of `each` slices every worker gets now.

        Args:
            left: slices that no worker holds.
            now: seconds, on any clock.
            each: slices that a worker answers together.
            installed: for each worker, how many of these slices it can score without installing; None: all.
            absent: workers that get none because they are restarting.
        """
        free = [
            0 if i in absent else max(0, self._ahead - -(-state.held // each)) for i, state in enumerate(self._workers)
        ]
        calls = -(-left // each)
        if calls > 2 * self._ahead * len(self._workers):
            return free
        seconds = _known([state.seconds for state in self._workers], otherwise=1.0)
        install = _known([state.install for state in self._workers], otherwise=0.0)
        # Its first calls need no install, the next one does.
        without = [left if installed is None else -(-installed[i] // each) for i in range(len(seconds))]
        share = [0] * len(seconds)

        def end_of_next_call(i: int, start: float) -> float:
            return start + each * seconds[i] + install[i] * (share[i] == without[i])

        ends = [
            (end_of_next_call(i, self._free_in(i, seconds[i], install[i], now)), i)
            for i in range(len(seconds))
            if i not in absent
        ]
        heapq.heapify(ends)
        for _ in range(calls if ends else 0):
            end, i = ends[0]
            share[i] += 1
            heapq.heapreplace(ends, (end_of_next_call(i, end), i))
        return list(map(min, free, share))

    def patience(self, worker: int, *, slices: int, limit: float) -> float:
        """Seconds after which a worker that holds a call of `slices` slices counts as hung.

        Slices of one call share a batch, so that many slices take less than `slices` times the limit. A worker whose
        speed is known gets the limit once and `SLOWER` times the seconds that it usually takes.
        """
        state = self._workers[worker]
        most = limit * slices
        if state.seconds is not None:
            most = min(most, limit + SLOWER * (state.seconds * slices + (state.install or 0.0)))
        return self._ahead * most

    def _free_in(self, worker: int, seconds: float, install: float, now: float) -> float:
        """Seconds until a worker finishes what it holds. If it is late, assume that it needs as long again."""
        state = self._workers[worker]
        return abs(state.held * seconds + state.installs * install - (now - state.since)) if state.held else 0.0


def _updated(before: float | None, newest: float) -> float:
    return newest if before is None else _MEMORY * before + (1 - _MEMORY) * newest


def _known(values: Sequence[float | None], *, otherwise: float) -> list[float]:
    """The values, and for those that are unknown the mean of the others."""
    known = [value for value in values if value is not None]
    usual = sum(known) / len(known) if known else otherwise
    return [usual if value is None else value for value in values]
