"""The grader actor: scores answers beside the engines."""

from __future__ import annotations

from collections.abc import Mapping

import ray

from evoswarm.backend.grade import Graded, Grader
from evoswarm.backend.pieces import Answers
from evoswarm.backend.ray.start import Start, attempt, built
from evoswarm.config import RunConfig
from evoswarm.utility import make_utility

CONTROL = "control"
"""The group of calls that do not wait for answers to be graded."""


class NotReady(Exception):
    """A grader got answers before `ready`: Ray has restarted it, and nobody has noticed yet."""


class GraderActor:
    """Grades slices of answers; see `backend.grade`. A restarted one recalls what the run has learned so far."""

    def __init__(self, config: RunConfig, number: int) -> None:
        self.number = number
        self._utility, self._made = attempt(lambda: make_utility(config.utility, root=config.root))
        self._opened: Start | None = None

    def ready(self, learned: Mapping[str, str]) -> Start:
        """Recall and check what scoring needs; answers once that is done, or has failed."""
        if self._made.error is not None:
            return self._made
        if self._opened is None:
            _, self._opened = attempt(lambda: self._open(learned))
        return self._opened

    def _open(self, learned: Mapping[str, str]) -> None:
        utility = built(self._utility)
        utility.recall(learned)
        utility.open()

    def grade(self, answered: list[Answers | str]) -> Graded:
        """See `Grader.grade`.

        Raises:
            NotReady: it does not know what the run has learned.
        """
        if self._opened is None:
            raise NotReady("it was restarted")
        return Grader(built(self._utility)).grade(answered)

    @ray.method(concurrency_group=CONTROL)
    def learned(self) -> dict[str, str]:
        """What the utility has learned since the last call, also in answers that are not graded yet."""
        return built(self._utility).learned()

    @ray.method(concurrency_group=CONTROL)
    def close(self) -> dict[str, str]:
        """Close the utility. Returns what it has learned meanwhile, also while answers are still graded."""
        utility = built(self._utility)
        try:
            return utility.learned()
        finally:
            utility.close()

    def __repr__(self) -> str:
        return f"Grader({self.number})"
