"""All particle, scorer and grader actors of a run on a Ray cluster: starts them, waits for them, adds more later."""

from __future__ import annotations

import secrets
import time
from typing import Any

import ray
from ray.actor import ActorHandle

from evoswarm.backend.grade import at_once
from evoswarm.backend.learned import Learned
from evoswarm.backend.ray.actor_group import ActorGroup
from evoswarm.backend.ray.grader import CONTROL, GraderActor
from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.particle import Particle
from evoswarm.backend.ray.placement import for_actors, place_run
from evoswarm.backend.ray.private import free_resources
from evoswarm.backend.ray.scheduling import Scheduling, process_options
from evoswarm.backend.ray.scorer import Scorer
from evoswarm.backend.ray.wait import finished, nodes, on_change, resources_for
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend as RayConfig
from evoswarm.errors import ClusterError, UserError
from evoswarm.place import RunPlace

JOIN_SECONDS = 5.0
"""How often to look for nodes that have joined. Resources that are free at the second look belong to nobody."""


class Actors:
    """All actors of a run.

    They are requested together, whether or not the cluster has resources for them: pending actors and placement groups
    are demand that an autoscaler sees, and this demand ends with the run. (`ray.autoscaler.sdk.request_resources` holds
    one value for the whole cluster; the next run would overwrite it, and nobody would remove it.)
    """

    def __init__(self, config: RunConfig, place: RunPlace, callbacks: Callbacks, learned: Learned) -> None:
        """Start the actors, and wait until those that the run needs are up. Graders are told what was `learned`.

        Raises:
            UserError: the cluster does not have the resources within `wait_seconds`, or an actor cannot start.
            ClusterError: an actor cannot start, for a reason that is not the user's.
            Stopped: the callbacks asked to stop.
        """
        assert isinstance(config.backend, RayConfig)
        self._config, self._place, self.settings = config, place, config.backend
        self._callbacks, self.message = callbacks, callbacks.message
        # Not the coordinator's id: a coordinator that is restarted elsewhere keeps it while old actors still live.
        self._token = secrets.token_hex(4)
        seen = nodes()
        self.placement = place_run(config, seen)
        self._scheduling = Scheduling(config.backend, self.placement)
        self._for_scorers = config.with_(engine=for_actors(config.engine, self.placement))
        self._seen, self._joined, self._looked = {node.name for node in seen}, set[str](), time.monotonic()
        self.particles, self.scorers = ActorGroup("particle", callbacks), ActorGroup("scorer", callbacks)
        self.graders = ActorGroup("grader", callbacks, told=lambda: (learned.entries,))
        self.message(f"starting {self.placement.summary}{self._override()}")
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _override(self) -> str:
        """Which settings change a placement that was chosen by default."""
        settings = ("particle_gpus", "scorer_gpus", "scorers", *(("grader_gpus",) if self.placement.graders else ()))
        default = [f"backend.{name}" for name in settings if getattr(self.settings, name) is None]
        return f" (to change this, set {', '.join(default)})" if default and self.placement.gpus else ""

    def close(self) -> None:
        """End all actors and release their resources."""
        for group in self._groups:
            for actor in group.actors:
                ray.kill(actor)
        self._scheduling.close()

    # Starting

    def _start(self) -> None:
        self._scheduling.reserve()
        for _ in range(self.placement.graders):
            self._add_grader()
        if self.placement.graders and missing(self.placement, nodes()) is None:
            self._wait_until_up()  # what they lack is known in seconds, and engines may take minutes
        for _ in range(self.placement.scorers):
            self._add_scorer()
        if self._scorers_first():
            self._wait_until_up()
        for _ in range(self.placement.particles):
            self._add_particle()
        self._wait_until_up()
        for _ in range((self.settings.max_scorers or 0) - len(self.scorers.actors)):
            self._add_scorer()

    def _scorers_first(self) -> bool:
        """Whether particles are requested only when all scorers are up.

        vLLM measures the free memory of a shared GPU when it starts. And particles, which fit anywhere, might take GPUs
        that a scorer needs on one node. On a cluster that must grow, both are requested: its autoscaler sees requests.
        """
        together = self.settings.colocate or self.settings.gang
        placement, particles = self.placement, self.placement.particle_gpus > 0 and not together
        return placement.shares_gpus or (particles and missing(placement, nodes()) is None)

    def _add_scorer(self) -> None:
        number, placement = len(self.scorers.actors), self.placement
        where = {"num_cpus": placement.cpus * placement.ranks} | self._scheduling.of_scorer(number)
        options = self._options(self.scorers, placement.scorer_gpus) | where
        self.scorers.add(ray.remote(Scorer).options(**options).remote(self._for_scorers, number))

    def _add_grader(self) -> None:
        number, placement = len(self.graders.actors), self.placement
        where = {"num_cpus": placement.grader_cpus} | self._scheduling.of_grader(number)
        options = self._options(self.graders, placement.grader_gpus) | where
        options["max_concurrency"] = at_once(self._config.utility)
        actor = ray.remote(concurrency_groups={CONTROL: 1})(GraderActor)
        self.graders.add(actor.options(**options).remote(self._config, number))

    def _add_particle(self) -> None:
        number, gpus = len(self.particles.actors), self.placement.particle_gpus
        options = self._options(self.particles, gpus) | self._scheduling.of_particle(number)
        actor: ActorHandle = (
            ray.remote(Particle).options(**options).remote(self._config, self._place, number, gpu=gpus > 0)
        )
        self.particles.add(actor)

    def _options(self, group: ActorGroup, gpus: float) -> dict[str, Any]:
        return process_options(
            cpus=0,
            gpus=gpus,
            run_gpus=self.placement.gpus,
            name=f"{group.kind}-{len(group.actors)}:{self._config.name}:{self._token}",
            max_restarts=-1,
            max_task_retries=0,  # another actor takes over the work of a lost one before Ray has restarted it
        )

    def _wait_until_up(self) -> None:
        """Wait for the actors added so far, as long as the cluster has the resources for them."""
        resources = resources_for(self.placement, self.settings, self._callbacks)
        say, since = on_change(self.message), time.monotonic()
        while True:
            self._take_in(finished(self._pending), starting=True)
            self._callbacks.check()
            absent = sum(len(group.absent) for group in self._groups)
            total = sum(len(group.actors) for group in self._groups)
            if not absent:
                return
            if not resources.present():
                since = time.monotonic()
            elif time.monotonic() - since > (limit := self.settings.start_seconds):
                raise UserError(
                    f"{absent} of {total} actors did not start within {limit:g} s; free resources of the cluster "
                    "(`ray status` shows who uses them), or raise backend.start_seconds"
                )
            else:
                say(f"{total - absent} of {total} actors are up")

    # Watching

    @property
    def _groups(self) -> list[ActorGroup]:
        """The kinds of which the run has actors."""
        return [group for group in (self.graders, self.scorers, self.particles) if group.actors]

    @property
    def _pending(self) -> list[Any]:
        return [ref for group in self._groups for ref in group.pending]

    def _take_in(self, refs: list[Any], *, starting: bool = False) -> None:
        for group in self._groups:
            group.take_in(refs, starting=starting)

    def watch(self, pending: list[Any]) -> list[Any]:
        """Wait up to a second for results of calls or for actors to come up; returns the refs of finished calls.

        Raises:
            ClusterError: no actor of one kind was up for as long as actors may take to start.
            Stopped: the run must stop.
        """
        done = finished([*pending, *self._pending])
        self._callbacks.check()
        self._take_in(done)
        self._add_on_joined_nodes()
        for group in self._groups:
            since = group.idle_since()
            if since is not None and time.monotonic() - since > self.settings.start_seconds:
                reason = group.why_absent or missing(self.placement, nodes()) or "see `ray status` for its resources"
                raise ClusterError(f"no {group.kind} is up ({reason}); rerun the command to resume")
        waiting = set(pending)
        return [ref for ref in done if ref in waiting]

    def _add_on_joined_nodes(self) -> None:
        """Add scorers on nodes that have joined, unless the config limits the number of scorers."""
        now = time.monotonic()
        if self.settings.scorers or self.settings.max_scorers or now - self._looked < JOIN_SECONDS:
            return
        self._looked = now
        present = {n.name: n for n in nodes() if n.has(self.settings.scorer_labels)}
        free = free_resources() if self._joined else {}
        count = sum(self._scorers_on(free.get(name, {})) for name in self._joined & present.keys())
        self._joined = present.keys() - self._seen
        self._seen |= present.keys()
        for _ in range(count):
            self._add_scorer()

    def _scorers_on(self, free: dict[str, float]) -> int:
        """How many more scorers these free resources hold."""
        cpus = free.get("CPU", 0.0) // (self.placement.cpus * self.placement.ranks)
        if not self.placement.scorer_gpus:
            return int(cpus)
        return int(min(cpus, free.get("GPU", 0.0) // self.placement.scorer_gpus))
