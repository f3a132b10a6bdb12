"""Everything in this process, without Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from evoswarm.backend.base import Assembly, Evaluation, Job, Seconds, failed
from evoswarm.backend.worker import Piece, Worker
from evoswarm.config import RunConfig
from evoswarm.rows import Row
from evoswarm.utility import Utility
from evoswarm.weights.materialise import Materialiser, Weights
from evoswarm.weights.pool import Pool
from evoswarm.weights.save import save_expert, save_vector

ROWS_AT_ONCE_BYTES = 2 << 30
"""Particles are materialised together, in one pass over the pool, up to this many bytes."""


class LocalBackend:
    """One engine; particles are materialised together and scored one after another."""

    def __init__(self, config: RunConfig, *, pool: Pool, utility: Utility) -> None:
        """Load the engine.

        Raises:
            UserError: the base model cannot be loaded.
        """
        self.seconds = Seconds()
        self._base = config.model
        self._resident: list[Weights] = []
        self._materialiser = Materialiser(pool, root=config.run_dir, threads=getattr(config.engine, "threads", 1))
        self._worker = Worker(config, pool=pool, utility=utility)

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """See `Backend.evaluate`."""
        bytes_each = max(1, self._materialiser.pool.experts[0].nbytes)
        step = max(1, ROWS_AT_ONCE_BYTES // bytes_each)
        for start in range(0, len(jobs), step):
            group = jobs[start : start + step]
            moved = self._move(group)
            pairs = list(zip(group, moved, strict=True))
            for _, alike in groupby(pairs, key=lambda pair: (pair[0].split, pair[0].texts)):
                left = list(alike)
                while left:
                    some, left = left[: self._worker.together], left[self._worker.together :]
                    yield from self._evaluate([job for job, _ in some], [weights for _, weights in some])

    def save_expert(self, row: Row, folder: Path) -> None:
        """See `Backend.save_expert`."""
        save_expert(self._materialiser, row, folder, base=self._base)

    def save_vector(self, row: Row, path: Path) -> None:
        """See `Backend.save_vector`."""
        save_vector(self._materialiser, row, path)

    def close(self) -> None:
        """See `Backend.close`."""

    def _move(self, jobs: Sequence[Job]) -> list[Weights | None]:
        start = time.perf_counter()
        rows = [job.row for job in jobs if job.row is not None]
        self._resident = self._materialiser.all(rows, into=self._resident) if rows else self._resident
        made = iter(self._resident)
        self.seconds.moving += time.perf_counter() - start
        return [None if job.row is None else next(made) for job in jobs]

    def _evaluate(self, jobs: Sequence[Job], moved: Sequence[Weights | None]) -> Iterator[Evaluation]:
        """The evaluations of jobs on one split, whose slices are scored side by side."""
        worker = self._worker
        cut = worker.slices(jobs[0].split).indices
        assemblies = [Assembly(job, cut, worker.utility) for job in jobs]
        errors: dict[int, str] = {}
        for number in range(len(cut)):
            going = [i for i in range(len(jobs)) if i not in errors and not assemblies[i].complete]
            if not going:
                break
            done = worker.work([Piece(jobs[i].key, moved[i], jobs[i].split, number, jobs[i].texts) for i in going])
            self.seconds.moving += done.moving
            self.seconds.scoring += done.scoring
            for i, result in zip(going, done.results, strict=True):
                if isinstance(result, str):
                    errors[i] = result
                else:
                    assemblies[i].add(number, result)
        for i, (job, assembly) in enumerate(zip(jobs, assemblies, strict=True)):
            yield failed(job, errors[i]) if i in errors else assembly.evaluation()
