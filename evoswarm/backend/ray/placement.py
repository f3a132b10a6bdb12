"""How many actors of which size a run needs, what lies together, and what the cluster lacks. Pure: knows no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evoswarm.backend.ray.nodes import Nodes, no_node_has, total, written
from evoswarm.config import RunConfig
from evoswarm.config.run import EngineConfig, RayBackend, VllmEngine

VLLM_SHARE = 0.9
"""Part of its share of a GPU that vLLM fills (its own default for a whole GPU); what is left is for CUDA itself."""
_CLOSE = 1e-9


@dataclass(frozen=True)
class Unit:
    """What has to lie on one node: `count` times so many CPUs and GPUs, on nodes with such labels.

    `lower` names the settings that make it smaller.
    """

    name: str
    count: int
    cpus: float
    gpus: float
    labels: Mapping[str, str]
    lower: str

    @property
    def names(self) -> str:
        """The name with the number."""
        first, _, rest = self.name.partition(" ")
        return f"{self.count} {first}s {rest}".strip()


@dataclass(frozen=True)
class Bundle:
    """A place in the run's placement group, and the numbers of the actors that lie in it."""

    cpus: float
    gpus: float
    labels: Mapping[str, str]
    scorer: int | None
    particles: tuple[int, ...]

    @property
    def resources(self) -> dict[str, float]:
        """As Ray has it."""
        return {name: amount for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}


@dataclass(frozen=True)
class Placement:
    """Actors of a run.

    GPUs are per actor; `cpus` is per scorer (particles and the coordinator take none). `scorers` are those that the run
    starts with. `ranks`: processes that one engine is split over, each with an equal share of the scorer's GPUs and
    `cpus` CPUs. `colocate`: a particle lies in the bundle of the scorer that has its number modulo `scorers`.
    """

    particles: int
    scorers: int
    particle_gpus: float
    scorer_gpus: float
    cpus: int
    ranks: int = 1
    particle_labels: Mapping[str, str] = field(default_factory=dict)
    scorer_labels: Mapping[str, str] = field(default_factory=dict)
    colocate: bool = False

    @property
    def gpus(self) -> float:
        """GPUs of all actors together."""
        return self.particles * self.particle_gpus + self.scorers * self.scorer_gpus

    @property
    def shares_gpus(self) -> bool:
        """Whether an engine has only a part of a GPU."""
        return 0 < self.scorer_gpus < 1

    def home(self, particle: int) -> int | None:
        """The scorer in whose bundle a particle lies."""
        return particle % self.particles % self.scorers if self.colocate else None

    @property
    def ranks_of_scorer(self) -> list[dict[str, float]] | None:
        """One bundle for each rank of an engine that is split over GPUs; None for one that is a single actor."""
        if self.ranks == 1 or not self.scorer_gpus:
            return None
        return [{"CPU": float(self.cpus), "GPU": self.scorer_gpus / self.ranks} for _ in range(self.ranks)]

    @property
    def bundles(self) -> list[Bundle]:
        """The places of all actors that take something, for one placement group."""
        if self.colocate:
            labels = {**self.particle_labels, **self.scorer_labels}
            homes = [tuple(range(number, self.particles, self.scorers)) for number in range(self.scorers)]
            return [Bundle(self.cpus, self._with(len(p)), labels, s, p) for s, p in enumerate(homes)]
        alone = [Bundle(self.cpus, self.scorer_gpus, self.scorer_labels, s, ()) for s in range(self.scorers)]
        if self.particle_gpus:
            alone += [Bundle(0, self.particle_gpus, self.particle_labels, None, (p,)) for p in range(self.particles)]
        return alone

    def _with(self, particles: int) -> float:
        """GPUs of a scorer with so many particles: a part of one, or whole ones, where each fraction lies on one."""
        shares = [self.scorer_gpus, *[self.particle_gpus] * particles]
        if sum(shares) <= 1 + _CLOSE:
            return round(sum(shares), 4)  # Ray counts in ten-thousandths
        taken: list[float] = []
        for share in (share for share in shares if 0 < share < 1):
            place = next((i for i, there in enumerate(taken) if there + share <= 1 + _CLOSE), None)
            if place is None:
                taken.append(share)
            else:
                taken[place] += share
        return sum(share for share in shares if share >= 1) + len(taken)

    @property
    def task(self) -> dict[str, Any]:
        """Options of a Ray task that holds one engine."""
        labels = {"label_selector": dict(self.scorer_labels)} if self.scorer_labels else {}
        return {"num_cpus": self.cpus * self.ranks, "num_gpus": self.scorer_gpus} | labels

    @property
    def units(self) -> list[Unit]:
        """What has to find a node, of each kind."""
        if self.colocate:
            most = -(-self.particles // self.scorers)
            name, lower = f"scorer with {most} particles", "backend.particle_gpus or backend.scorer_gpus"
            labels = {**self.particle_labels, **self.scorer_labels}
            return [Unit(name, self.scorers, self.cpus, self._with(most), labels, lower)]
        split = bool(self.ranks_of_scorer)
        each, number = (self.cpus, self.ranks) if split else (self.cpus * self.ranks, 1)
        share, name = self.scorer_gpus / number, "rank of a scorer" if split else "scorer"
        return [
            Unit("particle", self.particles, 0, self.particle_gpus, self.particle_labels, "backend.particle_gpus"),
            Unit(name, self.scorers * number, each, share, self.scorer_labels, "backend.scorer_gpus"),
        ]

    def lacks(self, nodes: Sequence[Nodes]) -> str | None:
        """What is missing in a cluster of these nodes, in a sentence; None if nothing is known to be.

        Each kind of actor is checked alone, so what passes may still not fit.
        """
        for labels, key in ((self.particle_labels, "particle_labels"), (self.scorer_labels, "scorer_labels")):
            if labels and (lack := no_node_has(labels, nodes)):
                return f"{lack}; give nodes these labels (`ray start --labels`), or correct backend.{key}"
        units = self.units
        usable = [n for n in nodes if any(n.has(unit.labels) for unit in units)]
        return self._lacks_in_all(usable) or next(filter(None, (_lacks(unit, nodes) for unit in units)), None)

    def _lacks_in_all(self, nodes: Sequence[Nodes]) -> str | None:
        cpus, gpus = total(nodes)
        where = "the cluster has" if not (self.particle_labels or self.scorer_labels) else "the nodes for it have"
        if self.gpus > gpus + _CLOSE:
            return (
                f"the run needs {self.gpus:g} GPUs ({self.particles} particles x {self.particle_gpus:g} + "
                f"{self.scorers} scorers x {self.scorer_gpus:g}), {where} {gpus:g}; add nodes, or lower "
                "search.population, backend.particle_gpus (a fraction or 0) or backend.scorers"
            )
        each = self.ranks * self.cpus
        if self.scorers * each > cpus + _CLOSE:
            return (
                f"the run needs {self.scorers * each} CPUs ({self.scorers} scorers x {each}), "
                f"{where} {cpus:g}; add nodes, or lower backend.scorers or engine.threads"
            )
        return None


def _lacks(unit: Unit, nodes: Sequence[Nodes]) -> str | None:
    own = [n for n in nodes if n.count and n.has(unit.labels)]
    if not own:
        return no_node_has(unit.labels, nodes)
    beside = f" with {written(unit.labels)}" if unit.labels else ""
    gpus, cpus = max(n.gpus for n in own), max(n.cpus for n in own)
    if unit.gpus > gpus + _CLOSE:
        return f"a {unit.name} takes {unit.gpus:g} GPUs, no node{beside} has more than {gpus:g}; lower {unit.lower}"
    if unit.cpus > cpus + _CLOSE:
        return f"a {unit.name} takes {unit.cpus:g} CPUs, no node{beside} has more than {cpus:g}; lower engine.threads"
    cpus, gpus = total(own)
    there = f"the nodes{beside} have" if beside else "the cluster has"
    on_one = math.floor(1 / unit.gpus + _CLOSE) if 0 < unit.gpus <= 1 else 0
    whole = math.ceil(unit.count / on_one) if on_one else unit.count * unit.gpus
    if whole > gpus + _CLOSE:
        reason, hint = "", f"add nodes, or lower {unit.lower}"
        if unit.gpus < 1:
            reason, hint = ", as a fraction lies on one GPU", f"choose {unit.lower} so that more fit on one"
        return f"{unit.names} x {unit.gpus:g} GPUs need {whole:g} GPUs{reason}, {there} {gpus:g}; {hint}"
    if unit.count * unit.cpus > cpus + _CLOSE:
        need = unit.count * unit.cpus
        return f"{unit.names} x {unit.cpus:g} CPUs need {need:g} CPUs, {there} {cpus:g}; add nodes, or ask for fewer"
    return None


def place(config: RayBackend, nodes: Sequence[Nodes], *, particles: int, threads: int, ranks: int = 1) -> Placement:
    """The actors of a run on a cluster of these nodes.

    Args:
        config: the user's wishes; what is null is derived.
        nodes: what the cluster has.
        particles: number of particle actors.
        threads: CPU threads of one engine, or of each of its ranks.
        ranks: processes that one engine is split over.
    """
    for_particles = [n for n in nodes if n.has(config.particle_labels)]
    for_scorers = [n for n in nodes if n.has(config.scorer_labels)]
    cpus, gpus = total(for_scorers)
    particle_gpus, scorer_gpus = config.particle_gpus, config.scorer_gpus
    if particle_gpus is None:
        particle_gpus = float(total(for_particles)[1] > 0)
    if scorer_gpus is None:
        scorer_gpus = float((gpus > 0) * ranks)
    scorers = config.scorers
    if scorers is None:
        elsewhere = total(n for n in for_particles if n not in for_scorers)[1]
        free = gpus - max(0.0, particles * particle_gpus - elsewhere)
        scorers = max(1, int((free + _CLOSE) / scorer_gpus) if scorer_gpus else int(cpus // (threads * ranks)))
        scorers = min(scorers, config.max_scorers or scorers)
    return Placement(
        particles,
        scorers,
        particle_gpus,
        scorer_gpus,
        threads,
        ranks,
        config.particle_labels,
        config.scorer_labels,
        config.colocate,
    )


def place_run(config: RunConfig, nodes: Sequence[Nodes]) -> Placement:
    """`place` for a whole config."""
    assert isinstance(config.backend, RayBackend)
    return place(
        config.backend,
        nodes,
        particles=max(config.search.population, getattr(config.search, "max_population", 0)),
        threads=getattr(config.engine, "threads", 1),
        ranks=getattr(config.engine, "ranks", 1),
    )


def place_engine(config: RunConfig, backend: RayBackend, nodes: Sequence[Nodes]) -> Placement:
    """`place` for a task that holds one engine and, in the same process, the particles."""
    return place(
        backend.model_copy(update={"scorers": 1}),
        nodes,
        particles=0,
        threads=getattr(config.engine, "threads", 1),
        ranks=getattr(config.engine, "ranks", 1),
    )


def for_actors(engine: EngineConfig, placement: Placement) -> EngineConfig:
    """The engine's settings as a scorer needs them where it has its place; what the user has set stays.

    vLLM takes 0.9 of the whole GPU otherwise, and would leave nothing to the particles on it. The ranks of a split
    engine are Ray's where there are GPUs (vLLM then takes the bundles of the scorer's placement group), else processes
    of the scorer.
    """
    if not isinstance(engine, VllmEngine):
        return engine
    derived: dict[str, object] = {}
    if placement.shares_gpus:
        derived["gpu_memory_utilization"] = round(VLLM_SHARE * placement.scorer_gpus, 3)
    if placement.ranks > 1:
        derived["distributed_executor_backend"] = "ray" if placement.scorer_gpus else "mp"
    return engine.model_copy(update={"args": derived | engine.args})
