"""The local backend: everything in this process, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from evoswarm.backend.base import Counters, Evaluation, Job
from evoswarm.backend.grade import at_once
from evoswarm.backend.learned import Learned
from evoswarm.backend.local_grading import LocalGrading
from evoswarm.backend.pace import Pace
from evoswarm.backend.pieces import Piece
from evoswarm.backend.round import Round
from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.engine import EngineDied
from evoswarm.rows import Row
from evoswarm.utility import Utility
from evoswarm.weights.materialize import Materializer, Weights
from evoswarm.weights.pool import Pool
from evoswarm.weights.save import save_best, save_vector

MOST_BYTES = 2 << 30
"""Particles are materialized together up to this many bytes."""
RETRIES = 3
"""How often a slice may kill its engine."""


class LocalBackend:
    """One engine. Particles are materialized together and scored one after another."""

    def __init__(
        self,
        config: RunConfig,
        *,
        pool: Pool,
        utility: Utility,
        root: Path | None = None,
        learned: Learned | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Load the engine.

        Args:
            config: the run.
            pool: its experts.
            utility: what is measured.
            root: the folder of saved basis vectors, if there are any.
            learned: what grading has learned earlier, and gets what it learns.
            warn: is told what the user should know about engine and prompts.

        Raises:
            UserError: the base model cannot be loaded, or what grading needs is missing.
        """
        self.counters = Counters()
        self._base, self._rank = config.model, config.export.rank
        self._materializer = Materializer(pool, root=root, threads=config.engine.cpus)
        self._grading = LocalGrading(
            utility, threads=at_once(config.utility), learned=learned or Learned(), counters=self.counters
        )
        try:
            self._worker = Worker(config, pool=pool, utility=utility)
        except BaseException:
            self._grading.close()
            raise
        for notice in self._worker.notices:
            warn(notice)

    @property
    def mode(self) -> str | None:
        """See `Backend.mode`."""
        return self._worker.mode

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """See `Backend.evaluate`."""
        worker, clock = self._worker, time.perf_counter
        round = Round(
            jobs,
            utility=worker.utility,
            cut=lambda split: worker.slices(split).indices,
            workers=1,
            pace=Pace(ahead=1),
            slices_per_call=worker.slices_per_call,
            jobs_per_call=worker.particles_per_batch,
            retries=RETRIES,
        )
        weights = ResidentWeights(self._materializer)
        self._grading.drop()  # of a round that ended early
        while not round.finished:
            calls = round.assign(now=clock()) if self._grading.has_room else []
            for call in calls:
                start = clock()
                moved = weights.of(round, {index for index, _ in call.work})
                self.counters.moving += clock() - start
                pieces = [(round.jobs[index], moved[index], number) for index, number in call.work]
                try:
                    done = worker.ask([Piece.of(job, w, number) for job, w, number in pieces])
                except EngineDied as error:
                    round.lost(call, str(error), now=clock())
                    worker.start()
                    continue
                self.counters.moving += done.installing
                self.counters.scoring += done.scoring
                self.counters.steps += done.steps
                round.answered(call, install=done.installing, now=clock())
                self._grading.add(call, done.results)
            for call, results in self._grading.graded(wait=not calls):
                yield from round.graded(call, results)
        worker.sleep()

    def save_expert(self, row: Row, folder: Path) -> float | None:
        """See `Backend.save_expert`."""
        return save_best(self._materializer, row, folder, base=self._base, rank=self._rank)

    def save_vector(self, row: Row, path: Path) -> None:
        """See `Backend.save_vector`."""
        save_vector(self._materializer, row, path)

    def close(self) -> None:
        """See `Backend.close`."""
        self._grading.close()
        self._worker.close()


class ResidentWeights:
    """The weights of the particles that are scored now or next, made together in one pass over the pool."""

    def __init__(self, materializer: Materializer, *, most_bytes: int = MOST_BYTES) -> None:
        self._materializer, self._most = materializer, most_bytes
        self._memory: list[Weights] = []
        self._made: dict[int, Mapping[str, np.ndarray] | None] = {}

    def of(self, round: Round, needed: Collection[int]) -> Mapping[int, Mapping[str, np.ndarray] | None]:
        """Weights by index of the job, at least of the needed ones; None for the base model.

        If one is missing, they are made together with those of the next jobs, and the earlier ones are dropped.
        Checkpoints are made tensor by tensor when they are installed.
        """
        if self._made.keys() >= set(needed):
            return self._made
        if self._materializer.pool.kind == "checkpoint":
            rows = {index: round.jobs[index].row for index in needed}
            self._made = {i: None if row is None else self._materializer.lazily(row) for i, row in rows.items()}
            return self._made
        most = max(len(needed), self._most // max(1, self._materializer.pool.nbytes))
        following = (i for i in range(min(needed), len(round.jobs)) if round.is_open(i))
        # The needed jobs come first: after an engine died they may not be the next in order.
        rows = {i: round.jobs[i].row for i in islice(dict.fromkeys([*sorted(needed), *following]), most)}
        present = [row for row in rows.values() if row is not None]
        self._memory = self._materializer.all(present, into=self._memory) if present else self._memory
        made = iter(self._memory)
        self._made = {index: None if row is None else next(made) for index, row in rows.items()}
        return self._made
