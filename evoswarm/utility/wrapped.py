"""The base of utilities that change the scores of another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evoswarm.utility.types import Outcome, Request, Response, Single, Split, Utility


class WrappedUtility:
    """A `Utility` over the examples and prompts of another one. Its utility is the mean of the scores."""

    negative: bool

    def __init__(self, inner: Utility) -> None:
        self.inner = inner
        self.votes = inner.votes

    @property
    def splits(self) -> Sequence[Split]:
        return self.inner.splits

    def size(self, split: Split) -> int:
        return self.inner.size(split)

    def requests(self, split: Split) -> list[Request]:
        return self.inner.requests(split)

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        return self.inner.follow(split, index, response)

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        return self.inner.outcomes(split, indices, responses)

    def open(self) -> None:
        self.inner.open()

    def close(self) -> None:
        self.inner.close()

    def learned(self) -> dict[str, str]:
        return self.inner.learned()

    def recall(self, entries: Mapping[str, str]) -> None:
        self.inner.recall(entries)

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        return self.inner.ruled_out(split, index, prefix)

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        if len(scores) != self.size(split) or not scores:
            raise ValueError(f"{self.size(split)} examples in {split}, {len(scores)} scores")
        return math.fsum(scores) / len(scores)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        return self.inner.metrics(split, scores, statistics)

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        return self.inner.gold_logprob(split, index, logprobs)

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        return self.inner.gold_after(split, index, response)

    def baselines(self, split: Split) -> Sequence[str]:
        return self.inner.baselines(split)

    def calibrate(self, split: Split, measured: Mapping[str, Sequence[Sequence[float]]]) -> None:
        self.inner.calibrate(split, measured)

    def weights(self, split: Split) -> list[float]:
        return [1 / self.size(split)] * self.size(split)

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        return self.inner.vote(split, index, predictions)

    def task_utilities(self, split: Split, scores: Sequence[float]) -> dict[str, float]:
        return {}

    def example(self, split: Split, index: int) -> dict[str, Any]:
        return self.inner.example(split, index)

    @property
    def reasoning_tags(self) -> Sequence[tuple[str, str]]:
        return self.inner.reasoning_tags

    @property
    def warnings(self) -> list[str]:
        return self.inner.warnings

    @property
    def sha256(self) -> str:
        return self.inner.sha256
