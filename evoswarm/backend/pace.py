"""How much work each worker may hold, so that all of them end together. Pure: the clock is the caller's."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass

AHEAD = 2
"""Slices that a worker holds while there is plenty of work: while it scores one, the next one's weights are on their
way."""
_MEMORY = 0.7
"""Weight of what was known of a worker's speed against its newest slice."""


@dataclass
class _Worker:
    seconds: float | None = None
    """Per slice, as seen so far."""
    held: int = 0
    since: float = 0.0
    """When it began the slice that it is scoring."""


class Pace:
    """Watches how fast workers are, and says how many slices each should take now.

    While there is plenty of work everyone holds `ahead` slices. Towards the end of a round each slice goes to the
    worker that will be done with it first (the greedy schedule, which for slices of one length is the shortest there
    is), so a slow worker does not begin what a fast one would end sooner, and nobody keeps a slice waiting that another
    could begin.
    """

    def __init__(self, workers: int, *, ahead: int = AHEAD) -> None:
        self._ahead = ahead
        self._workers = [_Worker() for _ in range(workers)]

    def join(self, workers: int) -> None:
        """There are so many workers now."""
        self._workers += [_Worker() for _ in range(workers - len(self._workers))]

    def began(self, worker: int, *, now: float, slices: int = 1) -> None:
        """A worker was given slices."""
        state = self._workers[worker]
        if not state.held:
            state.since = now
        state.held += slices

    def ended(self, worker: int, *, now: float, slices: int = 1) -> None:
        """A worker gave back slices, scored."""
        state = self._workers[worker]
        taken = (now - state.since) / slices
        state.seconds = taken if state.seconds is None else _MEMORY * state.seconds + (1 - _MEMORY) * taken
        state.held, state.since = state.held - slices, now

    def lost(self, worker: int, *, now: float, slices: int = 1) -> None:
        """A worker was lost with its slices: they say nothing about its speed."""
        state = self._workers[worker]
        state.held, state.since = state.held - slices, now

    def room(self, left: int, *, now: float, each: int = 1, absent: Collection[int] = ()) -> list[int]:
        """How many calls of `each` slices every worker should get now, where `left` slices wait.

        Args:
            left: slices that nobody holds yet.
            now: seconds, on any clock.
            each: slices that a worker answers at once.
            absent: workers that get none, because they are starting again.
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

    def _free_in(self, worker: int, seconds: float, now: float) -> float:
        """Seconds from now until a worker is done with what it holds; one that is late is late by as much again."""
        state = self._workers[worker]
        return abs(state.held * seconds - (now - state.since)) if state.held else 0.0
