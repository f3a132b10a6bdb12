"""Everything in this process, without Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from evoswarm.backend.base import Assembly, Evaluation, Job, Seconds, failed
from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
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
            for job, weights in zip(group, self._move(group), strict=True):
                yield self._evaluate(job, weights)

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

    def _evaluate(self, job: Job, weights: Weights | None) -> Evaluation:
        worker = self._worker
        cut = worker.slices(job.split)
        assembly = Assembly(job, worker.utility.size(job.split))
        try:
            self.seconds.moving += worker.install(job.key, weights)
            for number, indices in enumerate(cut.indices):
                outcomes, seconds = worker.score(job.split, number, texts=job.texts)
                assembly.add(indices, outcomes)
                self.seconds.scoring += seconds
        except UserError:
            raise
        except Exception as error:  # whatever an engine raises, this particle has failed and not the run
            return failed(job, describe(error))
        return assembly.evaluation(worker.utility)


def describe(error: BaseException) -> str:
    """An unforeseen error in one line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
