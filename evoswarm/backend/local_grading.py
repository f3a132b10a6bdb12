"""Grading in threads of this process, while the engine answers the next slices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from evoswarm.backend.base import Counters
from evoswarm.backend.grade import Graded, Grader
from evoswarm.backend.learned import KEPT_EVERY, Learned
from evoswarm.backend.pieces import Answers
from evoswarm.backend.round import Call
from evoswarm.utility import Outcome, Utility

Results = list[list[Outcome] | str]


class LocalGrading:
    """Grades the answers to calls. Results come in the order of the calls, so a run does not depend on the threads."""

    def __init__(self, utility: Utility, *, threads: int, learned: Learned, counters: Counters) -> None:
        """
        Args:
            utility: what is measured.
            threads: how many calls are graded at once; 0: each one as it comes, in the caller's thread.
            learned: gets what the utility learns; the utility recalls what it has.
            counters: counts the seconds.

        Raises:
            UserError: what scoring needs is missing.
        """
        self._utility, self._grader = utility, Grader(utility)
        self._learned, self._counters = learned, counters
        self._most = 2 * threads + 1
        self._calls: deque[tuple[Call, Future[Graded]]] = deque()
        utility.recall(learned.entries)
        utility.open()
        self._threads = ThreadPoolExecutor(threads, "grader") if threads else None

    @property
    def has_room(self) -> bool:
        """Whether more answers may wait."""
        return len(self._calls) < self._most

    def add(self, call: Call, answered: Sequence[Answers | str]) -> None:
        """Start to grade the answers to a call."""
        if self._threads is not None:
            self._calls.append((call, self._threads.submit(self._grader.grade, answered)))
            return
        now: Future[Graded] = Future()
        now.set_result(self._grader.grade(answered))
        self._calls.append((call, now))

    def graded(self, *, wait: bool) -> Iterator[tuple[Call, Results]]:
        """The results that have come; `wait`: at least one, if there are calls.

        Raises:
            UserError: a problem that would stop every particle.
        """
        while self._calls and (wait or self._calls[0][1].done()):
            call, future = self._calls[0]
            self._wait_for(future)
            graded = future.result()
            self._calls.popleft()
            yield call, self._taken(graded)
            wait = False

    def _wait_for(self, future: Future[Graded]) -> None:
        """Keep what the utility learns meanwhile, so that a kill loses little of a long slice."""
        while wait([future], timeout=KEPT_EVERY).not_done:
            self._learned.add(self._utility.learned())

    def now(self, answered: Sequence[Answers | str]) -> Results:
        """The results of answers, graded in this thread; raises as `graded` does."""
        return self._taken(self._grader.grade(answered))

    def _taken(self, graded: Graded) -> Results:
        self._counters.grading += graded.seconds
        self._learned.add(graded.learned)
        return graded.checked()

    def drop(self) -> None:
        """Forget all calls, after those that are graded now; what these learn is kept."""
        for _, future in self._calls:
            if not future.cancel():
                self._learned.add(future.result().learned)
        self._calls.clear()

    def close(self) -> None:
        """End the threads and close the utility."""
        self.drop()
        if self._threads is not None:
            self._threads.shutdown()
        self._learned.add(self._utility.learned())
        self._utility.close()
