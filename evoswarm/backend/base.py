"""The protocol between the loop and a backend: jobs in, evaluations out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility.types import Outcome, Split, Utility


@dataclass(frozen=True)
class Job:
    """One row to measure on one split.

    Attributes:
        key: the caller's name for the job, opaque to the backend. Unique in the backend's lifetime: workers recognize
            installed weights by it.
        row: None is the base model.
        split: which examples.
        texts: return every prediction, not only the scores.
        logprobs: return the log-probabilities of the gold answer too; those of options are always returned.
        raw: for a baseline (see `Utility.baselines`): the utility is the mean of the scores, as there is no other yet.
        affinity: number of the particle, a hint where its weights are resident; None if it does not matter.
    """

    key: Hashable
    row: Row | None
    split: Split = "validation"
    texts: bool = False
    logprobs: bool = False
    raw: bool = False
    affinity: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of one job. Failure is a value: `utility` is None and `error` says why.

    `key` is the job's. `scores` and `predictions` are indexed by example of the split; both are empty if the engine
    failed. So are `logprobs` and `statistics` (see `Outcome`), which are also empty if no example has any.
    """

    key: Hashable
    utility: float | None
    scores: list[float | None]
    predictions: list[str | None]
    error: str | None = None
    logprobs: list[Sequence[float]] = field(default_factory=list)
    statistics: list[Sequence[float]] = field(default_factory=list)

    @property
    def examples(self) -> int:
        """How many examples were scored or tried."""
        return len(self.scores)


@dataclass
class Counters:
    """What workers did so far: seconds (summed over workers), bytes of weights moved, tokens, and steps (see `Engine`).
    Slices queued now. `grading` are seconds beside the engine; where scoring is cheap, they are part of `scoring`."""

    scoring: float = 0.0
    grading: float = 0.0
    moving: float = 0.0
    moved_bytes: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    queued: int = 0


class Backend(Protocol):
    """Measures rows."""

    counters: Counters

    @property
    def mode(self) -> str | None:
        """How the engines that have started take particles in; see `EngineConfig.mode`."""
        ...

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """Measure the jobs. Yields each evaluation as soon as it is complete, in any order.

        Raises:
            UserError: a problem that would stop every particle (for example, the model cannot be loaded).
            ClusterError: workers were lost more often than `max_retries` allows.
        """
        ...

    def save_expert(self, row: Row, folder: Path) -> float | None:
        """Write the weights of a row as an expert of the pool's kind, with at most the config's `export.rank`.

        Returns:
            The share of the squared norm that is kept; None without `export.rank`.
        """
        ...

    def save_vector(self, row: Row, path: Path) -> None:
        """Write the weights of a row as one fp32 basis vector (re-basing)."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


@dataclass
class Assembly:
    """Collects the outcomes of a job's slices, in any order, into its evaluation."""

    job: Job
    cut: Sequence[tuple[int, ...]]
    utility: Utility
    _outcomes: dict[int, Outcome] = field(default_factory=dict)
    """By example index."""
    _slices: set[int] = field(default_factory=set)

    def add(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of one slice."""
        self._slices.add(number)
        self._outcomes |= zip(self.cut[number], outcomes, strict=True)

    @property
    def complete(self) -> bool:
        """Whether all slices are in."""
        return len(self._slices) == len(self.cut)

    def evaluation(self) -> Evaluation:
        """The evaluation. It failed if any example failed."""
        outcomes = [self._outcomes[i] for i in range(len(self._outcomes))]
        value, error = self._value(outcomes)
        scores, predictions = [o.score for o in outcomes], [o.prediction for o in outcomes]
        logprobs, statistics = [o.logprobs for o in outcomes], [o.statistics for o in outcomes]
        return Evaluation(self.job.key, value, scores, predictions, error, _known(logprobs), _known(statistics))

    def _value(self, outcomes: Sequence[Outcome]) -> tuple[float | None, str | None]:
        """Utility and error of all outcomes, in example order."""
        split = self.job.split
        failed = [(i, outcome.error) for i, outcome in enumerate(outcomes) if outcome.score is None]
        if failed:
            index, reason = failed[0]
            name = self.utility.example(split, index).get("id", index)
            return None, f"{len(failed)} of {len(outcomes)} examples failed, first example {name}: {reason}"
        scores = [outcome.score or 0.0 for outcome in outcomes]
        if self.job.raw:
            return math.fsum(scores) / len(scores), None
        return combined(self.utility, split, scores)


def combined(utility: Utility, split: Split, scores: Sequence[float]) -> tuple[float | None, str | None]:
    """The utility of the scores of all examples, or why they have none."""
    try:
        value = utility.aggregate(split, scores)
    except UserError as error:
        return None, str(error)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return None, "the scores are too large to be combined into a finite utility"
    return value, None


def _known(values: Sequence[tuple[float, ...]]) -> list[Sequence[float]]:
    """Values by example; empty if there are none."""
    return list(values) if any(values) else []


def failed(job: Job, reason: str) -> Evaluation:
    """The evaluation of a job whose engine failed."""
    return Evaluation(job.key, None, [], [], reason)
