"""The shared queue of (job, slice) work. Pure: knows neither Ray nor engines."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

Work = tuple[int, int]
"""(job index, slice number)"""


class WorkQueue:
    """Hands out slices so that workers rarely switch particles and are never idle while slices are left.

    A worker first finishes the job that it has installed. Then it takes the first job that nobody has started,
    preferring jobs whose home it is. Then it helps with the job that has the most slices left.

    Attributes:
        left: slices that are not handed out.
    """

    def __init__(self, slices: Sequence[int] = (), homes: Sequence[Hashable] | None = None) -> None:
        """
        Args:
            slices: number of slices of each job.
            homes: the preferred worker of each job; None for no preference.
        """
        self.left = sum(slices)
        self._left = {job: deque(range(count)) for job, count in enumerate(slices) if count}
        self._fresh: dict[int, Hashable] = {job: homes[job] if homes else None for job in self._left}
        self._current: dict[Hashable, int] = {}

    def take(self, worker: Hashable) -> Work | None:
        """The next slice for a worker; None if none is left."""
        job = self.next_job(worker)
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
        """Return a slice that was lost with its worker."""
        self._left[work[0]] = deque(sorted([work[1], *self._left.get(work[0], ())]))
        self.left += 1

    def drop(self, job: int) -> None:
        """Forget the remaining slices of a job."""
        self.left -= len(self._left.pop(job, ()))
        self._fresh.pop(job, None)

    def installed(self, worker: Hashable) -> int:
        """How many slices of the worker's current job are left."""
        return len(self._left.get(self._current.get(worker, -1), ()))

    def is_current(self, worker: Hashable, job: int) -> bool:
        """Whether the worker's last slice was of this job."""
        return self._current.get(worker) == job

    def next_job(self, worker: Hashable) -> int | None:
        """The job of the next slice for a worker; None if no slice is left."""
        current = self._current.get(worker)
        if current in self._left:
            return current
        if self._fresh:
            own = (job for job, home in self._fresh.items() if home == worker)
            return next(own, next(iter(self._fresh)))
        return max(self._left, key=lambda job: len(self._left[job]), default=None)
