"""The work of one `evaluate` call: queued, assigned and finished slices. Pure: knows neither Ray nor a clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from evoswarm.backend.base import Assembly, Evaluation, Job, failed
from evoswarm.backend.pace import Pace
from evoswarm.backend.pieces import Done
from evoswarm.backend.queue import Work, WorkQueue
from evoswarm.errors import ClusterError
from evoswarm.utility import Outcome, Split, Utility


@dataclass(frozen=True)
class Call:
    """The slices that a worker answers together, as (job index, slice number).

    `installs`: the worker has not installed all of these jobs.
    """

    worker: int
    work: tuple[Work, ...]
    installs: bool = False


class Round:
    """Jobs cut into slices, and the workers that score them.

    Example:
        while not round.finished:
            for call in round.assign(now=clock()):
                start(call)
            call, seconds, answers = wait_for_one()
            round.answered(call, install=seconds, now=clock())
            evaluations += round.graded(call, grade(answers))
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        utility: Utility,
        cut: Callable[[Split], Sequence[tuple[int, ...]]],
        workers: int,
        pace: Pace,
        slices_per_call: int = 1,
        jobs_per_call: int = 1,
        retries: int = 0,
        home: Callable[[Job], int | None] = lambda job: None,
    ) -> None:
        """
        Args:
            jobs: what to measure.
            utility: scores the answers.
            cut: gives the slices of a split.
            workers: number of workers.
            pace: knows their speeds, from earlier rounds if there were any.
            slices_per_call: slices that a worker answers together at most.
            jobs_per_call: how many jobs these may belong to.
            retries: how often a slice may be lost with its worker.
            home: the preferred worker of a job; it starts the job if it is free.
        """
        self.jobs = list(jobs)
        self._retries, self._jobs_per_call = retries, jobs_per_call
        self._workers = range(workers)
        self._open = {index: Assembly(job, cut(job.split), utility) for index, job in enumerate(jobs)}
        longest = max((len(assembly.cut) for assembly in self._open.values()), default=1)
        self._slices_per_call = min(slices_per_call, jobs_per_call * longest)
        self._queue = WorkQueue([len(job.cut) for job in self._open.values()], [home(job) for job in jobs])
        self._pace = pace
        pace.start(workers)
        self._losses: dict[Work, list[str]] = {}

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
        size = self._call_size(len(self._workers) - len(absent))
        installed = [self._queue.installed(worker) for worker in self._workers]
        room = self._pace.room(self._queue.left, now=now, each=size, installed=installed, absent=absent)
        calls: list[Call] = []
        for turn in range(max(room, default=0)):
            for worker in self._workers:
                if room[worker] > turn and (call := self._take(worker, size)).work:
                    self._pace.began(worker, now=now, slices=len(call.work), installs=call.installs)
                    calls.append(call)
        return calls

    def done(self, call: Call, done: Done[list[Outcome]], *, now: float) -> list[Evaluation]:
        """Add the results of a call that its worker has graded itself; see `answered` and `graded`."""
        self.answered(call, install=done.installing, now=now)
        return self.graded(call, done.results)

    def answered(self, call: Call, *, install: float, now: float) -> None:
        """A worker has answered a call and is free. `install`: seconds of the call that it took to install."""
        self._pace.ended(call.worker, now=now, slices=len(call.work), installs=call.installs, install=install)

    def graded(self, call: Call, results: Sequence[list[Outcome] | str]) -> list[Evaluation]:
        """Add the results of an answered call. Returns the evaluations that it completes."""
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
        self._pace.lost(call.worker, now=now, slices=len(call.work), installs=call.installs)
        self.answers_lost(call, reason)

    def answers_lost(self, call: Call, reason: str | None) -> None:
        """Return the slices of an answered call to the queue: its answers are gone. Raises as `lost` does."""
        for work in call.work:
            if work[0] not in self._open:
                continue
            reasons = self._losses.setdefault(work, [])
            reasons += [] if reason is None else [reason]
            if len(reasons) > self._retries:
                why = "; ".join(dict.fromkeys(reasons))
                raise ClusterError(f"a slice was lost {len(reasons)} times with its worker ({why})")
            self._queue.put_back(work)

    def patience(self, call: Call, limit: float) -> float:
        """Seconds after which a worker that holds a call counts as hung, if one slice may take `limit` seconds."""
        return self._pace.patience(call.worker, slices=len(call.work), limit=limit)

    def _call_size(self, workers: int) -> int:
        """Slices of the next calls. Near the end of a round, the rest is divided evenly among the workers."""
        turns = max(1, -(-self._queue.left // max(1, workers * self._slices_per_call)))
        return max(1, -(-self._queue.left // max(1, workers * turns)))

    def _take(self, worker: int, size: int) -> Call:
        """The next slices for a worker, up to `size`."""
        taken: list[Work] = []
        jobs: set[int] = set()
        installs = False
        while len(taken) < size and (job := self._queue.next_job(worker)) is not None:
            jobs.add(job)
            installs = installs or not self._queue.is_current(worker, job)
            work = self._queue.take(worker) if len(jobs) <= self._jobs_per_call else None
            if work is None:
                break
            taken.append(work)
        return Call(worker, tuple(taken), installs)
