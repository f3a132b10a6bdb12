"""The base of tasks whose answers are right or wrong, so that experts can vote on them."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from evoswarm.utility.config import Task
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import Outcome, Split

C = TypeVar("C", bound=Task)


class VotableUtility(TaskUtility[C]):
    """A task whose predictions can be combined by majority vote."""

    votes = True

    @abstractmethod
    def read(self, answer: str) -> str | None:
        """The prediction in an answer to any question; None if it cannot be read."""

    @abstractmethod
    def score(self, split: Split, index: int, prediction: str) -> float:
        """1.0 for a correct prediction, 0.0 for a wrong one."""

    def judge(self, split: Split, index: int, prediction: str | None) -> Outcome:
        """Score a prediction; None (an answer that could not be parsed) is wrong."""
        return Outcome(0.0 if prediction is None else self.score(split, index, prediction), prediction)

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        return self.judge(split, index, majority(predictions))


def majority(predictions: Sequence[str | None]) -> str | None:
    """The most frequent prediction (ties go to the earliest); None if there are no votes."""
    counts = Counter(prediction for prediction in predictions if prediction is not None)
    # A Counter keeps the order of first votes, and max returns the first maximum.
    return max(counts, key=lambda prediction: counts[prediction], default=None)
