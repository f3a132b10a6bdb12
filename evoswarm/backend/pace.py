"""How much work each worker may hold, so that all finish together. Pure: the caller passes the time."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass

AHEAD = 2
"""Calls that a worker holds: while it scores one, the weights of the next one are moving."""
SLOWER = 10.0
"""How many times slower than usual a worker may be before it counts as hung."""
_MEMORY = 0.7
"""Weight of a worker's earlier speed relative to its newest slice."""


@dataclass
class _Worker:
    seconds: float | None = None
    """Per slice, as measured so far."""
    held: int = 0
    since: float = 0.0
    """When it started its current slice."""


class Pace:
    """Measures the speed of workers and decides how many calls each gets now.

    With plenty of work, every worker holds `ahead` calls. Near the end of a round, each slice goes to the worker that
    will finish it first (the greedy schedule, which is optimal for slices of equal length). So a slow worker does not
    start a slice that a fast one would finish sooner, and no worker holds a slice that another could start now.
    """

    def __init__(self, workers: int, *, ahead: int = AHEAD) -> None:
        self._ahead = ahead
        self._workers = [_Worker() for _ in range(workers)]

    def join(self, workers: int) -> None:
        """Set the number of workers, which may have grown."""
        self._workers += [_Worker() for _ in range(workers - len(self._workers))]

    def began(self, worker: int, *, now: float, slices: int = 1) -> None:
        """A worker received slices."""
        state = self._workers[worker]
        if not state.held:
            state.since = now
        state.held += slices

    def ended(self, worker: int, *, now: float, slices: int = 1) -> None:
        """A worker returned scored slices."""
        state = self._workers[worker]
        taken = (now - state.since) / slices
        state.seconds = taken if state.seconds is None else _MEMORY * state.seconds + (1 - _MEMORY) * taken
        state.held, state.since = state.held - slices, now

    def lost(self, worker: int, *, now: float, slices: int = 1) -> None:
        """A worker was lost with its slices. This does not count for its speed."""
        state = self._workers[worker]
        state.held, state.since = state.held - slices, now

    def room(self, left: int, *, now: float, each: int = 1, absent: Collection[int] = ()) -> list[int]:
        """How many calls of `each` slices every worker gets now.

        Args:
            left: slices that no worker holds.
            now: seconds, on any clock.
            each: slices that a worker answers together.
            absent: workers that get none because they are restarting.
        """
        free = [
            0 if i in absent else max(0, self._ahead - -(-state.held // each)) for i, state in enumerate(self._workers)
        ]
        calls = -(-left // each)
        if calls > 2 * self._ahead * len(self._workers):
            return free
        known = [state.seconds for state in self._workers if state.seconds is not None]
        usual = sum(known) / len(known) if known else 1.0
        seconds = [usual if state.seconds is None else state.seconds for state in self._workers]
        ends = [
            (self._free_in(i, second, now) + each * second, i) for i, second in enumerate(seconds) if i not in absent
        ]
        heapq.heapify(ends)
        share = [0] * len(seconds)
        for _ in range(calls if ends else 0):
            end, i = ends[0]
            share[i] += 1
            heapq.heapreplace(ends, (end + each * seconds[i], i))
        return list(map(min, free, share))

    def patience(self, worker: int, *, slices: int, limit: float) -> float:
        """Seconds after which a worker that holds a call of `slices` slices counts as hung.

        Slices of one call share a batch, so that many slices take less than `slices` times the limit. A worker whose
        speed is known gets the limit once and `SLOWER` times the seconds that it usually takes.
        """
        usual = self._workers[worker].seconds
        known = limit * slices if usual is None else limit + SLOWER * usual * slices
        return self._ahead * min(known, limit * slices)

    def _free_in(self, worker: int, seconds: float, now: float) -> float:
        """Seconds until a worker finishes what it holds. If it is late, assume that it needs as long again."""
        state = self._workers[worker]
        return abs(state.held * seconds - (now - state.since)) if state.held else 0.0
