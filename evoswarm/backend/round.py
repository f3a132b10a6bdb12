"""The work of one `evaluate` call: queued, assigned and finished slices. Pure: knows neither Ray nor a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from evoswarm.backend.base import Assembly, Evaluation, Job, failed
from evoswarm.backend.pace import AHEAD, Pace
from evoswarm.backend.queue import Work, WorkQueue
from evoswarm.errors import ClusterError
from evoswarm.utility import Outcome, Split, Utility


@dataclass(frozen=True)
class Call:
    """The slices that a worker answers together, as (job index, slice number)."""

    worker: int
    work: tuple[Work, ...]


class Round:
    """Jobs cut into slices, and the workers that score them.

    Example:
        while not round.finished:
            for call in round.assign(now=clock()):
                start(call)
            call, results = wait_for_one()
            evaluations += round.done(call, results, now=clock())
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        utility: Utility,
        cut: Callable[[Split], Sequence[tuple[int, ...]]],
        workers: int,
        together: int = 1,
        ahead: int = AHEAD,
        retries: int = 0,
        home: Callable[[Job], int | None] = lambda job: None,
    ) -> None:
        """
        Args:
            jobs: what to measure.
            utility: scores the answers.
            cut: gives the slices of a split.
            workers: number of workers.
            together: slices that a worker answers together.
            ahead: calls that a worker holds at most.
            retries: how often a slice may be lost with its worker.
            home: the preferred worker of a job; it starts the job if it is free.
        """
        self.jobs = list(jobs)
        self._together, self._retries = together, retries
        self._workers = range(workers)
        self._open = {index: Assembly(job, cut(job.split), utility) for index, job in enumerate(jobs)}
        self._queue = WorkQueue([len(job.cut) for job in self._open.values()], [home(job) for job in jobs])
        self._pace = Pace(workers, ahead=ahead)
        self._losses: Counter[Work] = Counter()

    def join(self, workers: int) -> None:
        """Set the number of workers, which may have grown."""
        self._workers = range(workers)
        self._pace.join(workers)

    @property
    def finished(self) -> bool:
        """Whether every job has its evaluation."""
        return not self._open

    @property
    def left(self) -> int:
        """Slices that are not assigned."""
        return self._queue.left

    def is_open(self, job: int) -> bool:
        """Whether a job is not finished."""
        return job in self._open

    def assign(self, *, now: float, absent: Collection[int] = ()) -> list[Call]:
        """The calls to send now. Absent workers get none."""
        room = self._pace.room(self._queue.left, now=now, each=self._together, absent=absent)
        calls: list[Call] = []
        for turn in range(max(room, default=0)):
            for worker in self._workers:
                if room[worker] > turn and (work := self._take(worker)):
                    self._pace.began(worker, now=now, slices=len(work))
                    calls.append(Call(worker, work))
        return calls

    def done(self, call: Call, results: Sequence[list[Outcome] | str], *, now: float) -> list[Evaluation]:
        """Add the results of a call: for each slice its outcomes, or an error. Returns the evaluations it completes."""
        self._pace.ended(call.worker, now=now, slices=len(call.work))
        complete = []
        for (index, number), result in zip(call.work, results, strict=True):
            assembly = self._open.get(index)
            if assembly is None:
                continue
            if not isinstance(result, str):
                assembly.add(number, result)
                if not assembly.complete:
                    continue
            del self._open[index]
            self._queue.drop(index)
            complete.append(failed(assembly.job, result) if isinstance(result, str) else assembly.evaluation())
        return complete

    def lost(self, call: Call, reason: str | None, *, now: float) -> None:
        """Return the slices of a lost worker to the queue. Without a reason, they had not been started.

        Raises:
            ClusterError: a slice was lost more than `retries` times.
        """
        self._pace.lost(call.worker, now=now, slices=len(call.work))
        for work in call.work:
            if work[0] not in self._open:
                continue
            self._losses[work] += reason is not None
            if self._losses[work] > self._retries:
                raise ClusterError(f"a slice was lost {self._losses[work]} times with its worker ({reason})")
            self._queue.put_back(work)

    def _take(self, worker: int) -> tuple[Work, ...]:
        """The next slices for a worker, as many as it answers together."""
        taken = (self._queue.take(worker) for _ in range(self._together))
        return tuple(work for work in taken if work is not None)
