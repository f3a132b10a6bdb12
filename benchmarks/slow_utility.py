"""A utility whose scoring is slow on purpose, for `benchmarks.graders`. Workers import this module to register it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from evoswarm.section import NonNegative
from evoswarm.utility import TASKS, Outcome, Response, Split
from evoswarm.utility.config import Grading, Task
from evoswarm.utility.task import TaskUtility


class Slow(Task):
    """Right or wrong, which takes some seconds to find out."""

    type: Literal["slow"] = "slow"
    seconds: NonNegative = 0.0
    """Of each example."""


class SlowGraded(Slow):
    """The same in graders."""

    type: Literal["slow_graded"] = "slow_graded"  # type: ignore[assignment]
    grading: ClassVar[Grading | None] = "cpu"


class SlowUtility(TaskUtility[Slow]):
    """The share of answers that are equal to the example's, one slice after another."""

    config_class: Any = Slow

    def assess_all(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        time.sleep(self.config.seconds * len(indices))
        return super().assess_all(split, indices, responses)

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        return Outcome(float(str(response).strip() == self.example(split, index)["answer"]), None)


class SlowGradedUtility(SlowUtility):
    """See `SlowGraded`."""

    config_class = SlowGraded


TASKS.setdefault("slow", SlowUtility)
TASKS.setdefault("slow_graded", SlowGradedUtility)
