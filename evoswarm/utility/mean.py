"""The base of utilities that are the mean of their examples' scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from evoswarm.utility.config import Task
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.reasoning import REASONING_TAGS, Tags, opened
from evoswarm.utility.types import SPLITS, Outcome, Request, Response, Single, Split

A = TypeVar("A", bound=Task | LmEval)


class MeanUtility(ABC, Generic[A]):
    """The parts of a `Utility` that are the same for all utilities over one data set."""

    votes = False
    splits: Sequence[Split] = SPLITS

    config: A
    _requests: dict[Split, list[Request]]

    @abstractmethod
    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        """See `Utility.outcomes`."""

    @abstractmethod
    def example(self, split: Split, index: int) -> dict[str, Any]:
        """See `Utility.example`."""

    @property
    def negative(self) -> bool:
        return False

    def size(self, split: Split) -> int:
        return len(self._requests[split])

    def requests(self, split: Split) -> list[Request]:
        return list(self._requests[split])

    @property
    def reasoning_tags(self) -> Tags:
        """Opening and closing tags of reasoning."""
        return REASONING_TAGS if self.config.reasoning_tags is None else self.config.reasoning_tags

    def opening(self, split: Split, index: int) -> str:
        """The tag of reasoning that ends a plain prompt. An engine does this for a chat, which it renders."""
        prompt = self._requests[split][index].prompt
        return opened(prompt, self.reasoning_tags) if isinstance(prompt, str) else ""

    def outcome(self, split: Split, index: int, response: Response) -> Outcome:
        """Score the response to request `index`."""
        return self.outcomes(split, [index], [response])[0]

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        return None

    def open(self) -> None:
        return

    def close(self) -> None:
        return

    def learned(self) -> dict[str, str]:
        return {}

    def recall(self, entries: Mapping[str, str]) -> None:
        return

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        return False

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        if len(scores) != self.size(split) or not scores:
            raise ValueError(f"{self.size(split)} examples in {split}, {len(scores)} scores")
        return math.fsum(scores) / len(scores)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        return {}

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        return logprobs[0] if logprobs else math.nan

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        return None

    def baselines(self, split: Split) -> Sequence[str]:
        return ()

    def calibrate(self, split: Split, measured: Mapping[str, Sequence[Sequence[float]]]) -> None:
        return

    def weights(self, split: Split) -> list[float]:
        return [1 / self.size(split)] * self.size(split)

    def task_utilities(self, split: Split, scores: Sequence[float]) -> dict[str, float]:
        return {}

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        raise ValueError(f"answers of {type(self).__name__} cannot be put to a vote")
