"""The coordinator's overhead per generation: search, outcomes and checkpoint. Scoring takes no time here.

Seconds are those of the processor, so that other work on the machine counts less.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.common import close, show
from evoswarm.backend import Evaluation, Job
from evoswarm.backend.base import Counters
from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.loop.checkpoint import checkpoint_path
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.evolution import Evolution
from evoswarm.loop.inputs import Inputs
from evoswarm.place import RunPlace
from evoswarm.search import ModelSwarms, make_search

EXAMPLES, GENERATIONS = 200, 5
CASES = {(40, 10): 0.050, (1000, 1000): 1.0}


class InstantBackend:
    """Scores instantly with a smooth function of the row."""

    mode = None

    def __init__(self) -> None:
        self.counters = Counters()
        self._scores: list[list[float | None]] = [[float(i < n) for i in range(EXAMPLES)] for n in range(EXAMPLES + 1)]
        self._predictions: list[str | None] = ["answer"] * EXAMPLES

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        for job in jobs:
            assert job.row is not None
            share = math.exp(-sum(value * value for _, value in job.row.terms))
            yield Evaluation(job.key, share, self._scores[round(share * EXAMPLES)], self._predictions)


def main() -> None:
    """Run a few generations at both sizes."""
    lines = [_case(particles, experts) for particles, experts in CASES]
    show("coordinator", lines)
    close(
        "coordinator",
        ratio=round(max(line["seconds"] / goal for line, goal in zip(lines, CASES.values(), strict=True)), 3),
        goal="at most 1: seconds of the processor per generation / 0.05 (N 40, J 10) and / 1 (N 1000, J 1000); "
        "the first case's checkpoint below 64 kB",
        cases=lines,
    )


def _case(particles: int, experts: int) -> dict[str, Any]:
    seconds, size = generations_of(particles, experts, GENERATIONS)
    return {"N": particles, "J": experts, "seconds": float(np.median(seconds)), "checkpoint kB": size / 1000}


def generations_of(
    particles: int, experts: int, generations: int, callbacks: Callbacks = SILENT
) -> tuple[list[float], int]:
    """Seconds of the processor for each generation after the first, and bytes of the first checkpoint."""
    config = ModelSwarms(population=particles, max_generations=generations, patience=None)
    search = make_search(config, experts=[f"expert-{i}" for i in range(experts)], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        inputs = Inputs(pool=None, utility=None)  # type: ignore[arg-type]
        context = RunContext(
            SimpleNamespace(search=config), inputs, RunPlace(directory.path), InstantBackend(), callbacks
        )  # type: ignore[arg-type]
        evolution = Evolution(context)
        seconds = []
        for _ in range(generations + 1):
            start = time.process_time()
            evolution.generation(search)
            seconds.append(time.process_time() - start)
        return seconds[1:], (directory.path / checkpoint_path(1)).stat().st_size


if __name__ == "__main__":
    main()
