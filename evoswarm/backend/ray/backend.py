"""The Ray backend: measures on a cluster. Runs in the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evoswarm.backend.base import Counters, Evaluation, Job
from evoswarm.backend.grade import at_once
from evoswarm.backend.learned import Learned
from evoswarm.backend.pace import AHEAD, Pace
from evoswarm.backend.ray.actor_group import result_of
from evoswarm.backend.ray.actors import Actors
from evoswarm.backend.ray.calls import Calls
from evoswarm.backend.ray.grading import Grading
from evoswarm.backend.ray.sleep import put_to_sleep
from evoswarm.backend.round import Round
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend as RayConfig
from evoswarm.errors import ClusterError
from evoswarm.place import RunPlace
from evoswarm.rows import Row
from evoswarm.utility import Split, Utility, slices


class RayBackend:
    """Particle and scorer actors, and the queue of their work."""

    def __init__(
        self,
        config: RunConfig,
        place: RunPlace,
        *,
        utility: Utility,
        callbacks: Callbacks,
        learned: Learned | None = None,
    ) -> None:
        """Start the actors and wait until they have started; see `Actors`.

        `learned`: what grading has learned earlier, and gets what it learns.
        """
        assert isinstance(config.backend, RayConfig)
        self.counters = Counters()
        self._utility, self._config, self._message = utility, config, callbacks.message
        self._settings, self._place = config.backend, place
        self._pace = Pace()
        self._sizes: dict[Split, list[tuple[int, ...]]] = {}
        learned = learned or Learned()
        self._actors = Actors(config, place, callbacks, learned)
        self._grading = self._graded_by(self._actors, learned) if self._actors.placement.graders else None

    def _graded_by(self, actors: Actors, learned: Learned) -> Grading:
        return Grading(
            actors.graders,
            at_once(self._config.utility),
            self._settings.grading_timeout,
            self._settings.max_retries,
            learned,
            self.counters,
        )

    @property
    def mode(self) -> str | None:
        """See `Backend.mode`."""
        return self._actors.scorers.mode

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """See `Backend.evaluate`."""
        placement = self._actors.placement
        round = Round(
            jobs,
            utility=self._utility,
            cut=self.cut,
            workers=len(self._actors.scorers.actors),
            pace=self._pace,
            slices_per_call=self._config.engine.slices_per_call,
            jobs_per_call=self._config.engine.particles_per_batch,
            retries=self._settings.max_retries,
            home=lambda job: None if job.row is None or job.affinity is None else placement.home(job.affinity),
        )
        if self._grading is not None:
            self._grading.start()
        calls = Calls(self._actors, round, self.counters, self._grading)
        while not round.finished:
            calls.send()
            yield from calls.collect()
        if self._config.engine.sleeps:
            limit = self._settings.slice_timeout
            # A slice of a failed job may still be running.
            patience = None if limit is None else AHEAD * self._config.engine.particles_per_batch * limit
            put_to_sleep(self._actors.scorers, self._actors.watch, patience=patience, message=self._message)

    def cut(self, split: Split) -> list[tuple[int, ...]]:
        """The slices of a split; every scorer cuts them the same way."""
        if split not in self._sizes:
            self._sizes[split] = slices(self._utility.requests(split), self._config.engine.batch_size)
        return self._sizes[split]

    def save_expert(self, row: Row, folder: Path) -> float | None:
        """See `Backend.save_expert`."""
        name = folder.relative_to(self._place.path)
        kept: float | None = self._by_a_particle(lambda particle: particle.save_expert.remote(row, name))
        return kept

    def save_vector(self, row: Row, path: Path) -> None:
        """See `Backend.save_vector`."""
        name = path.relative_to(self._place.path)
        self._by_a_particle(lambda particle: particle.save_vector.remote(row, name))

    def close(self) -> None:
        """See `Backend.close`."""
        if self._grading is not None:
            self._grading.close()
        self._actors.close()

    def _by_a_particle(self, call: Callable[[Any], Any]) -> Any:
        """Call any running particle: a row gives the same weights everywhere."""
        particles, losses = self._actors.particles, 0
        while True:
            number = particles.nearest(0)
            if number in particles.absent:
                self._actors.watch([])
                continue
            try:
                return result_of(call(particles.actors[number]))
            except ClusterError:
                particles.lost(number)
                losses += 1
                if losses > self._settings.max_retries:
                    raise
