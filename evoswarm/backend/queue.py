"""The shared queue of (job, slice) work. Pure: knows neither Ray nor engines."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

Work = tuple[int, int]
"""(job index, slice number)"""


class WorkQueue:
    """Hands out slices so that workers rarely switch particles and none waits while there is work.

    A worker first goes on with the job it has installed, then takes the first job that nobody has begun, then helps
    with the job that has most slices left.
    """

    def __init__(self, slices: Sequence[int]) -> None:
        """
        Args:
            slices: number of slices of each job.
        """
        self._left: list[deque[int]] = [deque(range(count)) for count in slices]
        self._fresh = 0
        self._current: dict[Hashable, int] = {}

    def take(self, worker: Hashable) -> Work | None:
        """The next piece of work for a worker, or None if nothing is left."""
        job = self._choose(worker)
        if job is None:
            return None
        self._fresh = max(self._fresh, job + 1)
        self._current[worker] = job
        return job, self._left[job].popleft()

    @property
    def left(self) -> int:
        """Slices that wait."""
        return sum(map(len, self._left))

    def put_back(self, work: Work) -> None:
        """Work that was lost with its worker comes first again."""
        self._left[work[0]].appendleft(work[1])

    def drop(self, job: int) -> None:
        """Forget what is left of a job that has failed."""
        self._left[job].clear()

    def _choose(self, worker: Hashable) -> int | None:
        current = self._current.get(worker)
        if current is not None and self._left[current]:
            return current
        while self._fresh < len(self._left) and not self._left[self._fresh]:
            self._fresh += 1
        if self._fresh < len(self._left):
            return self._fresh
        most = max(range(len(self._left)), key=lambda job: len(self._left[job]), default=None)
        return most if most is not None and self._left[most] else None
