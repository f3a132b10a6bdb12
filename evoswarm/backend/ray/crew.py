"""The particles and scorers of a run on a Ray cluster: where they are put, waiting for them, more of them later."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.particle import Particle
from evoswarm.backend.ray.placement import for_actors, place_run
from evoswarm.backend.ray.scorer import Scorer
from evoswarm.backend.ray.team import Team
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend as RayConfig
from evoswarm.errors import ClusterError, Stopped, UserError

LOOK_SECONDS = 5.0
"""How often it is seen whether nodes have joined. What a node has left at the second look is free."""


class Crew:
    """All actors of a run.

    They are asked of Ray at once, whether the cluster has room or not: what waits for a place, alone or in a placement
    group, is demand that an autoscaler sees, and it goes with the run. (`ray.autoscaler.sdk.request_resources` would
    not do: it has one value for the whole cluster, which the next run overwrites and nobody takes back.)
    """

    def __init__(
        self, config: RunConfig, *, message: Callable[[str], None], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Start the actors and wait until those that the run needs are up.

        Raises:
            UserError: the cluster does not get the resources within `wait_seconds`, or an actor cannot start.
            Stopped: `stop` said so.
        """
        assert isinstance(config.backend, RayConfig)
        self._config, self._settings, self._message, self._stop = config, config.backend, message, stop
        self.start_seconds = max(config.backend.wait_seconds, 60)
        # Not the coordinator's id: one that is started elsewhere has it too, while actors of the one before still live.
        self._token = secrets.token_hex(4)
        self._groups: list[PlacementGroup] = []
        self._places: dict[tuple[type, int], int] = {}
        seen = nodes()
        self.placement = place_run(config, seen)
        self._at_work = config.model_copy(update={"engine": for_actors(config.engine, self.placement)})
        self._seen, self._joined, self._looked = {node.name for node in seen}, set[str](), time.monotonic()
        self.particles, self.scorers = Team("particle", message), Team("scorer", message)
        message(f"starting {self.placement.particles} particles and {self.placement.scorers} scorers")
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all actors and give their places back."""
        for actor in [*self.scorers.actors, *self.particles.actors]:
            ray.kill(actor)
        for group in self._groups:
            remove_placement_group(group)

    # Starting

    def _start(self) -> None:
        if self._settings.colocate or self._settings.gang:
            self._take_places()
        for _ in range(self.placement.scorers):
            self._add_scorer()
        if self.placement.shares_gpus:  # vLLM measures what is free when it starts
            self._wait_until_up()
        for _ in range(self.placement.particles):
            self._add(self.particles, Particle, self.placement.particle_gpus)
        self._wait_until_up()
        for _ in range((self._settings.max_scorers or 0) - len(self.scorers.actors)):
            self._add_scorer()

    def _take_places(self) -> None:
        """One placement group with a bundle for every actor, or for every scorer with its particles."""
        bundles = self.placement.bundles
        group = placement_group(
            [bundle.resources for bundle in bundles],
            strategy="SPREAD" if self._settings.spread else "PACK",
            bundle_label_selector=[dict(bundle.labels) for bundle in bundles],
        )
        self._groups.append(group)
        for index, bundle in enumerate(bundles):
            self._places |= {(Particle, number): index for number in bundle.particles}
            if bundle.scorer is not None:
                self._places[Scorer, bundle.scorer] = index

    def _add_scorer(self) -> None:
        self._add(self.scorers, Scorer, self.placement.scorer_gpus)

    def _add(self, team: Team, cls: type, gpus: float) -> None:
        number, particle = len(team.actors), cls is Particle
        options: dict[str, Any] = {
            "name": f"{team.kind}-{number}:{self._config.name}:{self._token}",
            "num_cpus": 0 if particle else self.placement.cpus * self.placement.ranks,
            "num_gpus": gpus,
            "max_restarts": -1,
            "max_task_retries": 0,  # work of a lost actor goes to another at once, not to the one that Ray will start
        }
        if self.placement.gpus and not gpus:
            # An actor without a share of a GPU sees all of them otherwise.
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        options |= self._place(cls, number)
        config, arguments = (self._config, {"gpu": gpus > 0}) if particle else (self._at_work, {})
        actor: ActorHandle = ray.remote(cls).options(**options).remote(config, number, **arguments)
        team.add(actor)

    def _place(self, cls: type, number: int) -> dict[str, Any]:
        """Options that say where an actor may be."""
        labels = dict(self._settings.particle_labels if cls is Particle else self._settings.scorer_labels)
        if (index := self._places.get((cls, number))) is not None:
            return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._groups[0], index)}
        if cls is Scorer and (bundles := self.placement.ranks_of_scorer):
            group = placement_group(bundles, strategy="PACK", bundle_label_selector=[labels] * len(bundles))
            self._groups.append(group)
            inside = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
            return {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": inside}  # its ranks have them
        strategy = "SPREAD" if self._settings.spread else "DEFAULT"
        return {"scheduling_strategy": strategy} | ({"label_selector": labels} if labels else {})

    def _wait_until_up(self) -> None:
        """Wait for those that were added, as long as the cluster gets what they need."""
        wait, began, said = self._settings.wait_seconds, time.monotonic(), ""
        roomy = began
        while True:
            self._take_in(_wait(self._asked()), starting=True)
            if self._stop():
                raise Stopped
            absent = [*self.scorers.absent, *self.particles.absent]
            if not absent:
                return
            now, lack = time.monotonic(), self.placement.lacks(nodes())
            if lack is None:
                total = len(self.scorers.actors) + len(self.particles.actors)
                text = f"{total - len(absent)} of {total} actors are up"
                if now - roomy > self.start_seconds:
                    raise UserError(
                        f"{len(absent)} of {total} actors did not start within {self.start_seconds:g} s; free "
                        "resources of the cluster (`ray status` shows who holds them) or raise backend.wait_seconds"
                    )
            else:
                roomy, text = now, f"waiting up to {wait:g} s: {lack}"
                if now - began > wait:
                    raise UserError(f"{lack} (waited {wait:g} s)")
            if text != said:
                self._message(text)
                said = text

    # Watching

    def _asked(self) -> list[Any]:
        return [*self.scorers.asked(), *self.particles.asked()]

    def _take_in(self, refs: list[Any], *, starting: bool = False) -> None:
        self.scorers.take_in(refs, starting=starting)
        self.particles.take_in(refs, starting=starting)

    def watch(self, pending: list[Any]) -> list[Any]:
        """Wait a second for answers to calls, of which those that have come are returned, and for actors to come up.

        Raises:
            ClusterError: no particle or no scorer was up for as long as actors may take to start.
            Stopped: the run is to stop.
        """
        done = _wait([*pending, *self._asked()])
        if self._stop():
            raise Stopped
        self._take_in(done)
        self._welcome()
        for team in (self.scorers, self.particles):
            since = team.idle_since()
            if since is not None and time.monotonic() - since > self.start_seconds:
                reason = team.why_not or self.placement.lacks(nodes()) or "`ray status` says what the cluster has"
                raise ClusterError(f"no {team.kind} is up ({reason}); resume with --resume auto")
        waiting = set(pending)
        return [ref for ref in done if ref in waiting]

    def _welcome(self) -> None:
        """More scorers where nodes have joined, if the run is to have as many as there is room for."""
        now = time.monotonic()
        if self._settings.scorers or self._settings.max_scorers or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        present = {n.name: n for n in nodes() if n.has(self._settings.scorer_labels)}
        free = available_resources_per_node() if self._joined else {}
        room = sum(self._room(free.get(name, {})) for name in self._joined & present.keys())
        self._joined = present.keys() - self._seen
        self._seen |= present.keys()
        for _ in range(room):
            self._add_scorer()

    def _room(self, free: dict[str, float]) -> int:
        """How many more scorers a node holds."""
        cpus = free.get("CPU", 0.0) // (self.placement.cpus * self.placement.ranks)
        if not self.placement.scorer_gpus:
            return int(cpus)
        return int(min(cpus, free.get("GPU", 0.0) // self.placement.scorer_gpus))


def _wait(refs: list[Any]) -> list[Any]:
    """Those of `refs` that have come after a second, or earlier if one has."""
    if not refs:
        time.sleep(1)
        return []
    return ray.wait(refs, timeout=1)[0]


def nodes() -> list[Nodes]:
    """The nodes of the cluster that are alive."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [
        Nodes(n["NodeID"], 1, n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0), n["Labels"])
        for n in alive
    ]
