"""What the loop asks of a backend, and what comes back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility.types import Outcome, Split, Utility

Key = tuple[int, str, int, Split]
"""(generation, phase, particle, split)"""


@dataclass(frozen=True)
class Job:
    """One row to measure on one split; `row` None is the base model as it is.

    `texts`: every prediction is wanted, not only the scores.
    """

    generation: int
    phase: str
    particle: int
    row: Row | None
    split: Split = "validation"
    texts: bool = False

    @property
    def key(self) -> Key:
        """What names the job within a run."""
        return self.generation, self.phase, self.particle, self.split


@dataclass(frozen=True)
class Evaluation:
    """What one job came to. Failure is a value: `utility` None and the reason in `error`.

    `scores` and `predictions` are by example index of the split.
    """

    job: Job
    utility: float | None
    scores: list[float | None]
    predictions: list[str | None]
    error: str | None = None


@dataclass
class Seconds:
    """Worker seconds so far, summed over workers."""

    scoring: float = 0.0
    moving: float = 0.0


@dataclass
class Traffic:
    """What went through a backend so far, and waits in it now; for metrics alone."""

    moved_bytes: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    queued: int = 0


class Backend(Protocol):
    """Measures rows."""

    seconds: Seconds

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """Measure the jobs; each evaluation comes as soon as it is whole, in any order.

        Raises:
            UserError: something that no other particle would do better (a model that cannot be loaded, ...).
            ClusterError: workers were lost more often than `max_retries` allows.
        """
        ...

    def save_expert(self, row: Row, folder: Path) -> None:
        """Write the weights of a row as an expert of the pool's kind."""
        ...

    def save_vector(self, row: Row, path: Path) -> None:
        """Write the weights of a row as one fp32 basis vector (re-basing)."""
        ...

    def close(self) -> None:
        """Give back everything that was taken."""
        ...


@dataclass
class Assembly:
    """Collects the outcomes of a job's slices, in any order, into its evaluation."""

    job: Job
    size: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def add(self, indices: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """The outcomes of one slice."""
        self.outcomes |= dict(zip(indices, outcomes, strict=True))

    @property
    def complete(self) -> bool:
        """Whether every example has its outcome."""
        return len(self.outcomes) == self.size

    def evaluation(self, utility: Utility) -> Evaluation:
        """The whole evaluation; failed if any example failed."""
        ordered = [self.outcomes[i] for i in range(self.size)]
        scores = [outcome.score for outcome in ordered]
        predictions = [outcome.prediction for outcome in ordered]
        failed = [(i, outcome.error) for i, outcome in enumerate(ordered) if outcome.score is None]
        if failed:
            index, reason = failed[0]
            name = utility.example(self.job.split, index).get("id", index)
            error = f"{len(failed)} of {self.size} examples failed, first example {name}: {reason}"
            return Evaluation(self.job, None, scores, predictions, error)
        try:
            value = utility.aggregate(self.job.split, [score for score in scores if score is not None])
        except UserError as error:
            return Evaluation(self.job, None, scores, predictions, str(error))
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            reason = "the scores are too large to be combined into a finite utility"
            return Evaluation(self.job, None, scores, predictions, reason)
        return Evaluation(self.job, value, scores, predictions)


def failed(job: Job, reason: str) -> Evaluation:
    """The evaluation of a job whose engine failed."""
    return Evaluation(job, None, [], [], reason)
