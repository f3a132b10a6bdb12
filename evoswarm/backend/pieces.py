"""Work for an engine, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

import numpy as np

from evoswarm.backend.base import Job
from evoswarm.engine import Reply
from evoswarm.errors import first_line
from evoswarm.utility import Request, Split


@dataclass(frozen=True, eq=False)
class Piece:
    """One slice of one particle.

    Attributes:
        key: name of the weights; equal keys have equal weights.
        weights: the particle's weights; None is the base model.
        split: which examples.
        number: which slice of them.
        texts: return every prediction. Otherwise, generation stops as soon as an answer is certain to be wrong, and the
            answer has no prediction.
        logprobs: return log-probabilities; see `Outcome`.
    """

    key: Hashable
    weights: Mapping[str, np.ndarray] | None
    split: Split
    number: int
    texts: bool = False
    logprobs: bool = False

    @classmethod
    def of(cls, job: Job, weights: Mapping[str, np.ndarray] | None, number: int) -> Self:
        """A slice of a job, whose weights these are."""
        return cls(job.key, weights, job.split, number, job.texts, job.logprobs)


@dataclass(frozen=True)
class Answers:
    """The replies to one slice of a split, in the order of its indices."""

    split: Split
    indices: tuple[int, ...]
    replies: list[Reply]


R = TypeVar("R")
S = TypeVar("S")


@dataclass
class Done(Generic[R]):
    """The results of pieces, or an error of each: its answers, or the outcomes in the order of the slice's indices.

    Seconds for `scoring`, for `installing` weights, and for `moving`, which made the weights. For metrics: bytes of
    weights received, tokens read and written, and steps (see `Engine`).
    """

    results: list[R | str]
    scoring: float = 0.0
    installing: float = 0.0
    moving: float = 0.0
    moved_bytes: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)

    def with_results(self, results: list[S | str]) -> Done[S]:
        """The same effort with other results."""
        return Done(results, self.scoring, self.installing, self.moving, self.moved_bytes, self.tokens, self.steps)


def describe(error: BaseException) -> str:
    """An unexpected error in one line."""
    return f"{type(error).__name__}: {first_line(error) if str(error).strip() else 'no message'}"


@dataclass(frozen=True)
class Slices:
    """The requests of a split, and the indices of each slice."""

    requests: list[Request]
    indices: list[tuple[int, ...]]
