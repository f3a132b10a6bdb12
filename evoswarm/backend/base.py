"""What the loop asks of a backend, and what comes back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility.types import Outcome, Split, Utility

Key = tuple[int, str, int, Split]
"""(generation, phase, particle, split)"""
Bounds = tuple[float, float]
"""Lowest and highest possible utility."""


@dataclass(frozen=True)
class Job:
    """One row to measure on one split; `row` None is the base model as it is.

    `texts`: every prediction is wanted, not only the scores. `enough`: a utility that is surely not below the first
    and not above the second of these decides nothing, so the evaluation may stop there; None: it is wanted exactly.
    """

    generation: int
    phase: str
    particle: int
    row: Row | None
    split: Split = "validation"
    texts: bool = False
    enough: Bounds | None = None

    @property
    def key(self) -> Key:
        """What names the job within a run."""
        return self.generation, self.phase, self.particle, self.split


@dataclass(frozen=True)
class Evaluation:
    """What one job came to. Failure is a value: `utility` None and the reason in `error`.

    `scores` and `predictions` are by example index of the split. `bounds`: the evaluation was stopped early (see
    `Job.enough`), and the utility is the middle of these; examples that were not scored have neither score nor
    prediction.
    """

    job: Job
    utility: float | None
    scores: list[float | None]
    predictions: list[str | None]
    error: str | None = None
    bounds: Bounds | None = None

    @property
    def examples(self) -> int:
        """How many examples were scored, or tried."""
        return len(self.scores) if self.bounds is None else sum(score is not None for score in self.scores)

    def serves(self, job: Job) -> bool:
        """Whether this is as exact as `job` needs it."""
        return self.bounds is None or (job.enough is not None and within(self.bounds, job.enough))


def within(inner: Bounds, outer: Bounds) -> bool:
    """Whether the second bounds hold the first."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]


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


More = Callable[[Evaluation], Sequence[Job]]
"""The jobs that follow from an evaluation."""


class Backend(Protocol):
    """Measures rows."""

    seconds: Seconds

    def evaluate(self, jobs: Sequence[Job], *, more: More | None = None) -> Iterator[Evaluation]:
        """Measure the jobs; each evaluation comes as soon as it is whole, in any order.

        Args:
            jobs: what to measure.
            more: asked, after an evaluation was taken, for jobs to go on with.

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
    """Collects the outcomes of a job's slices, in any order, into its evaluation.

    Where the job says what is enough, the evaluation stops with the first slice, in the order of the slices, after
    which that much is sure. What came of later slices is dropped, so the result does not depend on who was faster.
    """

    job: Job
    cut: Sequence[tuple[int, ...]]
    utility: Utility
    _slices: dict[int, list[Outcome]] = field(default_factory=dict)
    _checked: int = 0
    _bounds: Bounds | None = None

    def add(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """The outcomes of one slice."""
        self._slices[number] = list(outcomes)
        while self._bounds is None and self._checked in self._slices:
            self._checked += 1
            self._stop_early()

    @property
    def complete(self) -> bool:
        """Whether nothing more is needed."""
        return self._bounds is not None or len(self._slices) == len(self.cut)

    def evaluation(self) -> Evaluation:
        """The evaluation; failed if any example failed."""
        outcomes = self._outcomes(len(self.cut) if self._bounds is None else self._checked)
        size = self.utility.size(self.job.split)
        scores = [outcomes[i].score if i in outcomes else None for i in range(size)]
        predictions = [outcomes[i].prediction if i in outcomes else None for i in range(size)]
        if self._bounds is not None:
            return Evaluation(
                self.job, self._bounds[0] / 2 + self._bounds[1] / 2, scores, predictions, bounds=self._bounds
            )
        value, error = self._value(outcomes)
        return Evaluation(self.job, value, scores, predictions, error)

    def _outcomes(self, slices: int) -> dict[int, Outcome]:
        """By example index, of the first slices."""
        return {
            index: outcome
            for number in range(slices)
            for index, outcome in zip(self.cut[number], self._slices[number], strict=True)
        }

    def _value(self, outcomes: dict[int, Outcome]) -> tuple[float | None, str | None]:
        """Utility and error of all outcomes."""
        split = self.job.split
        failed = [(i, outcomes[i].error) for i in sorted(outcomes) if outcomes[i].score is None]
        if failed:
            index, reason = failed[0]
            name = self.utility.example(split, index).get("id", index)
            return None, f"{len(failed)} of {len(outcomes)} examples failed, first example {name}: {reason}"
        try:
            value = self.utility.aggregate(split, [outcomes[i].score or 0.0 for i in range(len(outcomes))])
        except UserError as error:
            return None, str(error)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            return None, "the scores are too large to be combined into a finite utility"
        return value, None

    def _stop_early(self) -> None:
        """Set the bounds if the slices so far are enough and are not all."""
        enough, span = self.job.enough, self.utility.score_range
        if enough is None or span is None or self._checked == len(self.cut):
            return
        known = {index: outcome.score for index, outcome in self._outcomes(self._checked).items()}
        if None in known.values():
            return
        size = range(self.utility.size(self.job.split))
        try:
            low, high = (self.utility.aggregate(self.job.split, [known.get(i, r) or 0.0 for i in size]) for r in span)
        except OverflowError:
            return
        if within((low, high), enough):
            self._bounds = low, high


def failed(job: Job, reason: str) -> Evaluation:
    """The evaluation of a job whose engine failed."""
    return Evaluation(job, None, [], [], reason)
