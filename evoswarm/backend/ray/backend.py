"""Measuring on a Ray cluster. Runs inside the coordinator."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from evoswarm.backend.base import Assembly, Evaluation, Job, Seconds, Traffic, failed
from evoswarm.backend.queue import Work, WorkQueue
from evoswarm.backend.ray.particle import Particle
from evoswarm.backend.ray.placement import Placement, place
from evoswarm.backend.ray.scorer import Scorer
from evoswarm.backend.worker import Done, describe
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend as RayConfig
from evoswarm.errors import ClusterError, Stopped, UserError
from evoswarm.rows import Row
from evoswarm.utility import Split, Utility, slices

PER_SCORER = 2
"""Slices sent to a scorer at once: while it scores one, the next one's weights are on their way."""


class RayBackend:
    """Particle and scorer actors, and the queue between them."""

    def __init__(
        self,
        config: RunConfig,
        *,
        utility: Utility,
        message: Callable[[str], None] = lambda text: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start the actors and wait until they are up.

        Raises:
            UserError: the cluster does not get the resources within `wait_seconds`, or an actor cannot start.
        """
        assert isinstance(config.backend, RayConfig)
        self.seconds, self.traffic = Seconds(), Traffic()
        self._utility, self._batch_size = utility, config.engine.batch_size
        self._retries, self._stop = config.backend.max_retries, stop
        self.together = config.engine.together
        self._sizes: dict[Split, list[tuple[int, ...]]] = {}
        placement = _wait_for_resources(config, message, stop)
        message(f"starting {placement.particles} particles and {placement.scorers} scorers")
        self._scorers = [self._actor(Scorer, placement, config, i) for i in range(placement.scorers)]
        self._particles = [self._actor(Particle, placement, config, i) for i in range(placement.particles)]
        try:
            self._wait_until_up(config.backend.wait_seconds, message)
        except BaseException:
            self.close()
            raise

    # Starting

    def _actor(self, cls: type, placement: Placement, config: RunConfig, number: int) -> ActorHandle:
        particle = cls is Particle
        gpus = placement.particle_gpus if particle else placement.scorer_gpus
        options: dict[str, Any] = {
            "name": f"{cls.__name__.lower()}-{number}:{config.name}:{ray.get_runtime_context().get_actor_id()[:8]}",
            "num_cpus": 0 if particle else placement.cpus,
            "num_gpus": gpus,
            "max_restarts": -1,
            "max_task_retries": self._retries,
        }
        if placement.gpus and not gpus:
            # An actor without a share of a GPU sees all of them otherwise.
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        arguments = {"gpu": gpus > 0} if particle else {}
        return ray.remote(cls).options(**options).remote(config, number, **arguments)

    def _wait_until_up(self, seconds: float, message: Callable[[str], None]) -> None:
        waiting = [actor.ready.remote() for actor in [*self._scorers, *self._particles]]
        seconds = max(seconds, 60)
        total, deadline = len(waiting), time.monotonic() + seconds
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=2)
            for ref in done:
                _get(ref)
            if self._stop():
                raise Stopped
            if waiting:
                message(f"{total - len(waiting)} of {total} actors are up")
            if waiting and time.monotonic() > deadline:
                raise UserError(
                    f"{len(waiting)} of {total} actors did not start within {seconds:g} s; free resources of the "
                    "cluster (`ray status` shows who holds them) or raise backend.wait_seconds"
                )

    # Measuring

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        """See `Backend.evaluate`."""
        round = _Round(self, jobs)
        while not round.finished:
            round.hand_out()
            yield from round.collect()

    def cut(self, split: Split) -> list[tuple[int, ...]]:
        """The slices of a split, as every scorer cuts them too."""
        if split not in self._sizes:
            self._sizes[split] = slices(self._utility.requests(split), self._batch_size)
        return self._sizes[split]

    def save_expert(self, row: Row, folder: Path) -> None:
        """See `Backend.save_expert`."""
        _get(self._particles[0].save_expert.remote(row, folder))

    def save_vector(self, row: Row, path: Path) -> None:
        """See `Backend.save_vector`."""
        _get(self._particles[0].save_vector.remote(row, path))

    def close(self) -> None:
        """See `Backend.close`."""
        for actor in [*self._scorers, *self._particles]:
            ray.kill(actor)


class _Round:
    """The work of one `evaluate`: what is queued, under way and done."""

    def __init__(self, backend: RayBackend, jobs: Sequence[Job]) -> None:
        self._backend, self._jobs = backend, jobs
        self._cuts = [backend.cut(job.split) for job in jobs]
        self._queue = WorkQueue([len(cut) for cut in self._cuts])
        self._open = {i: Assembly(job, backend._utility.size(job.split)) for i, job in enumerate(jobs)}
        self._moved: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, list[Work]]] = {}
        self._losses: Counter[Work] = Counter()

    @property
    def finished(self) -> bool:
        return not self._open

    def hand_out(self) -> None:
        """Give work to every scorer that has room."""
        load = Counter(scorer for scorer, _ in self._pending.values())
        for number in range(len(self._backend._scorers)):
            while load[number] < PER_SCORER and (work := self._take(number)):
                self._pending[self._send(number, work)] = (number, work)
                load[number] += 1
        self._backend.traffic.queued = self._queue.left

    def _take(self, number: int) -> list[Work]:
        """As many pieces as an engine answers at once."""
        taken = (self._queue.take(number) for _ in range(self._backend.together))
        return [work for work in taken if work is not None]

    def _send(self, number: int, work: list[Work]) -> Any:
        jobs = [self._jobs[index] for index, _ in work]
        for job, (index, _) in zip(jobs, work, strict=True):
            if index not in self._moved and job.row is not None:
                particles = self._backend._particles
                self._moved[index] = particles[job.particle % len(particles)].move.remote(job.row)
        moved = [self._moved.get(index) for index, _ in work]
        pieces = [(job.key, job.split, piece, job.texts) for job, (_, piece) in zip(jobs, work, strict=True)]
        return self._backend._scorers[number].score.remote(pieces, *moved)

    def collect(self) -> Iterator[Evaluation]:
        """Take in what has been scored; yields the evaluations that are whole."""
        done, _ = ray.wait(list(self._pending), timeout=1)
        if self._backend._stop():
            raise Stopped
        for ref in done:
            _, work = self._pending.pop(ref)
            for index, evaluation in self._take_in(ref, work):
                self._open.pop(index, None)
                self._moved.pop(index, None)
                yield evaluation

    def _take_in(self, ref: Any, work: list[Work]) -> Iterator[tuple[int, Evaluation]]:
        """The evaluations that are whole with these pieces, by job."""
        try:
            done: Done = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            done = Done([describe(error.cause)] * len(work), 0.0, 0.0)
        except RayError as error:
            for lost in work:
                self._lost(lost, error)
            return
        self._backend.seconds.scoring += done.scoring
        self._backend.seconds.moving += done.moving
        self._backend.traffic.moved_bytes += done.moved_bytes
        self._backend.traffic.tokens += done.tokens
        for (index, piece), result in zip(work, done.results, strict=True):
            assembly = self._open.get(index)
            if assembly is None:
                continue
            if isinstance(result, str):
                self._queue.drop(index)
                yield index, failed(self._jobs[index], result)
                continue
            assembly.add(self._cuts[index][piece], result)
            if assembly.complete:
                yield index, assembly.evaluation(self._backend._utility)

    def _lost(self, work: Work, error: RayError) -> None:
        self._losses[work] += 1
        if self._losses[work] > self._backend._retries:
            raise ClusterError(f"a slice was lost {self._losses[work]} times with its worker ({describe(error)})")
        self._moved.pop(work[0], None)
        self._queue.put_back(work)


def _get(ref: Any) -> Any:
    """`ray.get` that raises what the actor raised."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        lines = [line.strip() for line in str(error).splitlines() if "UserError:" in line]
        if lines:  # raised while the actor was starting
            raise UserError(lines[-1].split("UserError:", 1)[1].strip()) from None
        raise ClusterError(f"an actor was lost ({describe(error)}); resume with --resume auto") from None


def _wait_for_resources(config: RunConfig, message: Callable[[str], None], stop: Callable[[], bool]) -> Placement:
    assert isinstance(config.backend, RayConfig)
    deadline = time.monotonic() + config.backend.wait_seconds
    particles = max(config.search.population, getattr(config.search, "max_population", 0))
    threads, said = getattr(config.engine, "threads", 1), None
    while True:
        resources = ray.cluster_resources()
        placement = place(config.backend, resources, particles=particles, threads=threads)
        lack = placement.lacks(resources)
        if lack is None:
            return placement
        if time.monotonic() > deadline:
            raise UserError(f"{lack} (waited {config.backend.wait_seconds:g} s)")
        if lack != said:
            message(f"waiting up to {config.backend.wait_seconds:g} s: {lack}")
            said = lack
        if stop():
            raise Stopped
        time.sleep(1)
