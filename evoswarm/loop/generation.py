"""One generation: what it has measured so far, and its lines in the run directory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from evoswarm.backend import Evaluation
from evoswarm.backend.base import Counters
from evoswarm.loop.directory import RunDirectory, generation_name
from evoswarm.loop.journal import Journal, Key
from evoswarm.loop.outcomes import task_utilities
from evoswarm.search import Search
from evoswarm.utility import Utility

T = TypeVar("T")


@dataclass
class Totals:
    """Counts over the whole run."""

    evaluations: int = 0
    examples_scored: int = 0
    examples_reused: int = 0


class Stopwatch:
    """Wall time, worker seconds and engine steps since its start."""

    def __init__(self, workers: Counters) -> None:
        self._workers = workers
        self._start = time.perf_counter(), workers.scoring, workers.grading, workers.moving
        self._steps = Counter(workers.steps)

    def seconds(self) -> dict[str, float]:
        """`total` is wall time, `scoring`, `grading` and `moving` are summed over workers."""
        start, scoring, grading, moving = self._start
        return {
            "total": time.perf_counter() - start,
            "scoring": self._workers.scoring - scoring,
            "grading": self._workers.grading - grading,
            "moving": self._workers.moving - moving,
        }

    def steps(self) -> dict[str, int]:
        """See `Engine.steps`."""
        return dict(self._workers.steps - self._steps)


class GenerationRecord:
    """What one generation has measured so far.

    Attributes:
        journal: its outcomes on disk.
        evaluations: in the order of its rows.
        rows: blocks of rows [*, J].
        succeeded: keys of successful evaluations by the digest of their row.
    """

    def __init__(self, directory: RunDirectory, generation: int, workers: Counters) -> None:
        self.generation = generation
        self.journal = Journal(directory, generation_name(generation))
        self.evaluations: dict[Key, Evaluation] = {}
        self.rows: list[np.ndarray] = []
        self.succeeded: dict[bytes, Key] = {}
        self._stopwatch, self._searching = Stopwatch(workers), 0.0

    def add(self, key: Key, digest: bytes, evaluation: Evaluation) -> None:
        """Add the next evaluation."""
        self.evaluations[key] = evaluation
        if evaluation.error is None:
            self.succeeded[digest] = key

    def find(self, digest: bytes) -> Evaluation | None:
        """The evaluation of an equal row of this generation; None if there is none."""
        key = self.succeeded.get(digest)
        return None if key is None else self.evaluations[key]

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Measure the time that the search itself takes."""
        start = time.perf_counter()
        yield
        self._searching += time.perf_counter() - start

    def timing(self, examples: int) -> dict[str, Any]:
        """The line of `timings.jsonl`; `examples` were scored in this generation."""
        seconds = self._stopwatch.seconds() | {"search": self._searching}
        return {
            "generation": self.generation,
            "examples": examples,
            "seconds": seconds,
            "steps": self._stopwatch.steps(),
        }

    def line(self, search: Search, totals: Totals, utility: Utility) -> dict[str, Any]:
        """The line of `generations.jsonl`."""
        best, worst = search.global_best, search.global_worst
        assert best is not None and worst is not None
        present = [member.utility for member in search.population if member.utility is not None]
        failed = {key: evaluation for key, evaluation in self.evaluations.items() if evaluation.error}
        return {
            "generation": self.generation,
            "best": best.utility,
            "best_particle": best.particle,
            "best_generation": best.generation,
            "worst": worst.utility,
            "median": float(np.median(present)) if present else None,
            "utilities": _by_phase(self.evaluations, lambda evaluation: evaluation.utility),
            "tasks": _by_phase(self._by_task(utility), lambda found: found),
            "failed": _by_phase(failed, lambda evaluation: evaluation.error),
            **asdict(totals),
            "step_length": search.step_length,
            "basis_size": len(search.basis),
            "forecast": search.forecast and search.forecast.to_dict(),
            "front": search.front and search.front.to_dict(),
        }

    def _by_task(self, utility: Utility) -> dict[Key, dict[str, float]]:
        """The utility of each task, for every successful evaluation of a utility that has tasks."""
        found = {key: task_utilities(e, utility, "validation") for key, e in self.evaluations.items()}
        return {key: tasks for key, tasks in found.items() if tasks}


def _by_phase(evaluations: dict[Key, T], value: Callable[[T], Any]) -> dict[str, dict[str, Any]]:
    """{phase: {particle: value}}"""
    result: dict[str, dict[str, Any]] = {}
    for key, evaluation in evaluations.items():
        result.setdefault(key.phase, {})[str(key.particle)] = value(evaluation)
    return result
