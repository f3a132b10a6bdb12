"""The shared queue of (job, slice) work. Pure: knows neither Ray nor engines."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

Work = tuple[int, int]
"""(job index, slice number)"""


class WorkQueue:
    """Hands out slices so that workers rarely switch particles and none waits while there is work.

    A worker first goes on with the job it has installed, then takes the first job that nobody has begun, one that is at
    home with it before others, then helps with the job that has most slices left.

    Attributes:
        left: slices that nobody has.
    """

    def __init__(self, slices: Sequence[int]) -> None:
        """
        Args:
            slices: number of slices of each job.
        """
        self.left = 0
        self._left: dict[int, deque[int]] = {}
        self._jobs = 0
        self._fresh: dict[int, Hashable] = {}
        self._current: dict[Hashable, int] = {}
        for count in slices:
            self.add(count)

    def add(self, slices: int, *, home: Hashable = None) -> None:
        """One more job, of so many slices; `home` is the worker that is nearest to it."""
        if slices:
            self._left[self._jobs] = deque(range(slices))
            self._fresh[self._jobs] = home
        self._jobs += 1
        self.left += slices

    def take(self, worker: Hashable) -> Work | None:
        """The next piece of work for a worker, or None if nothing is left."""
        job = self._choose(worker)
        if job is None:
            return None
        self._fresh.pop(job, None)
        self._current[worker] = job
        self.left -= 1
        slices = self._left[job]
        number = slices.popleft()
        if not slices:
            del self._left[job]
        return job, number

    def put_back(self, work: Work) -> None:
        """Work that was lost with its worker waits in its old place again."""
        self._left[work[0]] = deque(sorted([work[1], *self._left.get(work[0], ())]))
        self.left += 1

    def drop(self, job: int) -> None:
        """Forget what is left of a job that has failed."""
        self.left -= len(self._left.pop(job, ()))
        self._fresh.pop(job, None)

    def _choose(self, worker: Hashable) -> int | None:
        current = self._current.get(worker)
        if current in self._left:
            return current
        if self._fresh:
            own = (job for job, home in self._fresh.items() if home == worker)
            return next(own, next(iter(self._fresh)))
        return max(self._left, key=lambda job: len(self._left[job]), default=None)
