"""Measuring on a Ray cluster. Runs inside the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from evoswarm.backend.base import Evaluation, Job, More, Seconds, Traffic
from evoswarm.backend.pace import AHEAD
from evoswarm.backend.ray.particle import Particle
from evoswarm.backend.ray.placement import Placement, for_actors, place
from evoswarm.backend.ray.scorer import Scorer
from evoswarm.backend.round import Call, Round
from evoswarm.backend.worker import Done, describe
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend as RayConfig
from evoswarm.engine.trouble import EngineDied
from evoswarm.errors import ClusterError, Stopped, UserError
from evoswarm.rows import Row
from evoswarm.utility import Split, Utility, slices


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
        self._retries, self._stop, self._message = config.backend.max_retries, stop, message
        self._slice_timeout = config.backend.slice_timeout
        self._start_seconds = max(config.backend.wait_seconds, 60)
        self.together = config.engine.together
        self._sizes: dict[Split, list[tuple[int, ...]]] = {}
        placement = _wait_for_resources(config, message, stop)
        message(f"starting {placement.particles} particles and {placement.scorers} scorers")
        self._groups: list[PlacementGroup] = []
        self._scorers: list[ActorHandle] = []
        self._particles: list[ActorHandle] = []
        at_work = config.model_copy(update={"engine": for_actors(config.engine, placement)})
        self._rests = getattr(config.engine, "sleep", False)
        try:
            self._scorers = [self._actor(Scorer, placement, at_work, i) for i in range(placement.scorers)]
            if placement.shares_gpus:  # vLLM measures what is free when it starts
                self._wait_until_up(self._scorers, message)
            self._particles = [self._actor(Particle, placement, config, i) for i in range(placement.particles)]
            self._wait_until_up([*self._scorers, *self._particles], message)
        except BaseException:
            self.close()
            raise

    # Starting

    def _actor(self, cls: type, placement: Placement, config: RunConfig, number: int) -> ActorHandle:
        particle = cls is Particle
        gpus = placement.particle_gpus if particle else placement.scorer_gpus
        options: dict[str, Any] = {
            "name": f"{cls.__name__.lower()}-{number}:{config.name}:{ray.get_runtime_context().get_actor_id()[:8]}",
            "num_cpus": 0 if particle else placement.cpus * placement.ranks,
            "num_gpus": gpus,
            "max_restarts": -1,
            "max_task_retries": self._retries,
        }
        if not particle and (bundles := placement.bundles):
            group = placement_group(bundles, strategy="PACK")
            self._groups.append(group)
            options |= {"num_cpus": 0, "num_gpus": 0}  # its ranks have them
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            )
        elif placement.gpus and not gpus:
            # An actor without a share of a GPU sees all of them otherwise.
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        arguments = {"gpu": gpus > 0} if particle else {}
        return ray.remote(cls).options(**options).remote(config, number, **arguments)

    def _wait_until_up(self, actors: Sequence[ActorHandle], message: Callable[[str], None]) -> None:
        waiting = [actor.ready.remote() for actor in actors]
        seconds = self._start_seconds
        total, deadline = len(waiting), time.monotonic() + seconds
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=2)
            for notice in {_get(ref) for ref in done} - {None}:
                message(notice)
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

    def evaluate(self, jobs: Sequence[Job], *, more: More | None = None) -> Iterator[Evaluation]:
        """See `Backend.evaluate`."""
        round = Round(
            jobs,
            utility=self._utility,
            cut=self.cut,
            workers=len(self._scorers),
            together=self.together,
            retries=self._retries,
        )
        calls = _Calls(self, round)
        while not round.finished:
            calls.hand_out()
            for evaluation in calls.collect():
                yield evaluation
                round.add(more(evaluation) if more else [])
        if self._rests:
            ray.get([scorer.rest.remote() for scorer in self._scorers])

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
        for group in self._groups:
            remove_placement_group(group)


class _Calls:
    """What is under way on the actors, for one round of work."""

    def __init__(self, backend: RayBackend, round: Round) -> None:
        self._backend, self._round = backend, round
        self._moved: dict[int, Any] = {}
        self._pending: dict[Any, tuple[Call, float]] = {}
        self._starting: dict[Any, tuple[int, float]] = {}

    def hand_out(self) -> None:
        """Give work to the scorers."""
        absent = {number for number, _ in self._starting.values()}
        for call in self._round.assign(now=time.monotonic(), absent=absent):
            self._pending[self._send(call)] = call, time.monotonic()
        self._backend.traffic.queued = self._round.left

    def _send(self, call: Call) -> Any:
        jobs = [self._round.jobs[index] for index, _ in call.work]
        for job, (index, _) in zip(jobs, call.work, strict=True):
            if index not in self._moved and job.row is not None:
                particles = self._backend._particles
                self._moved[index] = particles[job.particle % len(particles)].move.remote(job.row)
        moved = [self._moved.get(index) for index, _ in call.work]
        pieces = [(job.key, job.split, piece, job.texts) for job, (_, piece) in zip(jobs, call.work, strict=True)]
        return self._backend._scorers[call.worker].score.remote(pieces, *moved)

    def collect(self) -> list[Evaluation]:
        """Take in what has been scored; returns the evaluations that are whole."""
        done, _ = ray.wait([*self._pending, *self._starting], timeout=1)
        if self._backend._stop():
            raise Stopped
        up = [ref for ref in done if self._starting.pop(ref, None) is not None]
        done = [ref for ref in done if ref not in up]
        whole = [evaluation for ref in done for evaluation in self._take_in(ref, self._pending.pop(ref)[0])]
        self._moved = {index: ref for index, ref in self._moved.items() if self._round.is_open(index)}
        self._end_hung()
        self._give_up_on_those_that_do_not_start()
        return whole

    def _take_in(self, ref: Any, call: Call) -> list[Evaluation]:
        """The evaluations that are whole with these slices."""
        try:
            done: Done = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            if isinstance(error.cause, EngineDied):
                self._lose(call, str(error.cause))
                self._start_again(call.worker)
                return []
            done = Done([describe(error.cause)] * len(call.work), 0.0, 0.0)
        except RayError as error:
            self._lose(call, describe(error))
            return []
        self._backend.seconds.scoring += done.scoring
        self._backend.seconds.moving += done.moving
        self._backend.traffic.moved_bytes += done.moved_bytes
        self._backend.traffic.tokens += done.tokens
        return self._round.done(call, done.results, now=time.monotonic())

    def _lose(self, call: Call, reason: str) -> None:
        for index, _ in call.work:
            self._moved.pop(index, None)
        self._round.lost(call, reason, now=time.monotonic())

    def _end_hung(self) -> None:
        """Start scorers again that have not answered for too long; their slices go out again, as lost."""
        limit = self._backend._slice_timeout
        if limit is None:
            return
        now = time.monotonic()
        hung = {c.worker for c, since in self._pending.values() if now - since > AHEAD * len(c.work) * limit}
        for ref, (call, _) in list(self._pending.items()):
            if call.worker in hung:
                ray.cancel(ref)  # or Ray would try it again itself
                del self._pending[ref]
                self._lose(call, f"no answer within {limit:g} s per slice")
        for number in hung:
            self._backend._message(f"scorer {number} has not answered within {limit:g} s per slice, starting it again")
            self._start_again(number)

    def _start_again(self, number: int) -> None:
        """End a scorer's process; Ray starts another one, which gets nothing until it is up."""
        scorer = self._backend._scorers[number]
        ray.kill(scorer, no_restart=False)
        self._starting[scorer.ready.remote()] = number, time.monotonic()

    def _give_up_on_those_that_do_not_start(self) -> None:
        limit = self._backend._start_seconds
        late = [number for number, since in self._starting.values() if time.monotonic() - since > limit]
        if late:
            raise ClusterError(f"scorer {late[0]} did not start again within {limit:g} s; resume with --resume auto")


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
    threads, ranks, said = getattr(config.engine, "threads", 1), getattr(config.engine, "ranks", 1), None
    while True:
        resources = ray.cluster_resources()
        placement = place(config.backend, resources, particles=particles, threads=threads, ranks=ranks)
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
