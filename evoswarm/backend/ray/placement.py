"""How many actors of which size a run needs, and which of them share a bundle. Pure: does not know Ray."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evoswarm.backend.ray.nodes import CLOSE, Nodes, total
from evoswarm.backend.ray.packing import Unit, kinds, pack, spread, take
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend
from evoswarm.engine import EngineConfig
from evoswarm.utility.config import Grading

PINNED = 2
"""By default each particle pins a GPU if there are this many GPUs per particle; otherwise scorers get all of them."""


@dataclass(frozen=True)
class Bundle:
    """A bundle of the run's placement group, and the numbers of the actors in it."""

    cpus: float
    gpus: float
    labels: Mapping[str, str]
    scorer: int | None
    particles: tuple[int, ...]
    grader: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """In Ray's format."""
        return {name: amount for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}


@dataclass(frozen=True)
class Placement:
    """The actors of a run.

    GPUs are per actor; `cpus` is per scorer and `grader_cpus` per grader (particles and the coordinator take none).
    `scorers` is the number at the start. `ranks`: processes that one engine is split over, each with an equal share of
    the scorer's GPUs and with `cpus` CPUs. `colocate`: particle i is in the bundle of scorer i modulo `scorers`.
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
    graders: int = 0
    grader_gpus: float = 0.0
    grader_cpus: int = 0
    grader_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> float:
        """GPUs of all actors in total."""
        graders = self.graders * self.grader_gpus
        return self.particles * self.particle_gpus + self.scorers * self.scorer_gpus + graders

    @property
    def gpu_share(self) -> float:
        """The share of each of its GPUs that an engine has."""
        return min(1.0, self.scorer_gpus / self.ranks)

    @property
    def summary(self) -> str:
        """What runs where, in one line."""
        where = (
            f"with {self.particle_gpus:g} GPU each" if self.particle_gpus else "without GPU (weights in host memory)"
        )
        found = f"{self.particles} particles {where}, "
        found += _each("scorer", self.scorers, self.scorer_gpus, self.cpus * self.ranks)
        if self.graders:
            found += ", " + _each("grader", self.graders, self.grader_gpus, self.grader_cpus)
        return found

    @property
    def shares_gpus(self) -> bool:
        """Whether an engine has only a fraction of a GPU."""
        return 0 < self.scorer_gpus < 1

    def home(self, particle: int) -> int | None:
        """The scorer whose bundle holds a particle; None without colocation."""
        return particle % self.particles % self.scorers if self.colocate else None

    @property
    def ranks_of_scorer(self) -> list[dict[str, float]] | None:
        """One bundle per rank of an engine that is split over GPUs; None for an engine in a single actor."""
        if self.ranks == 1 or not self.scorer_gpus:
            return None
        return [{"CPU": float(self.cpus), "GPU": self.scorer_gpus / self.ranks} for _ in range(self.ranks)]

    @property
    def bundles(self) -> list[Bundle]:
        """The bundles of all actors that take resources, for one placement group."""
        grade = [
            Bundle(self.grader_cpus, self.grader_gpus, self.grader_labels, None, (), number)
            for number in range(self.graders if self.grader_cpus or self.grader_gpus else 0)
        ]
        if self.colocate:
            labels = {**self.particle_labels, **self.scorer_labels}
            homes = [tuple(range(number, self.particles, self.scorers)) for number in range(self.scorers)]
            return [Bundle(self.cpus, self._with(len(p)), labels, s, p) for s, p in enumerate(homes)] + grade
        alone = [Bundle(self.cpus, self.scorer_gpus, self.scorer_labels, s, ()) for s in range(self.scorers)]
        if self.particle_gpus:
            alone += [Bundle(0, self.particle_gpus, self.particle_labels, None, (p,)) for p in range(self.particles)]
        return alone + grade

    def _with(self, particles: int) -> float:
        """GPUs of a scorer with its particles: a fraction of one, or whole GPUs that hold each fraction on one."""
        shares = [self.scorer_gpus, *[self.particle_gpus] * particles]
        if sum(shares) <= 1 + CLOSE:
            return round(sum(shares), 4)  # Ray counts in units of 1/10000
        taken: list[float] = []
        for share in (share for share in shares if 0 < share < 1):
            gpu = next((i for i, used in enumerate(taken) if used + share <= 1 + CLOSE), None)
            if gpu is None:
                taken.append(share)
            else:
                taken[gpu] += share
        return sum(share for share in shares if share >= 1) + len(taken)

    @property
    def task(self) -> dict[str, Any]:
        """Arguments of `process_options` for a Ray task that runs one engine."""
        labels = {"label_selector": dict(self.scorer_labels)} if self.scorer_labels else {}
        return {"cpus": self.cpus * self.ranks, "gpus": self.scorer_gpus} | labels

    @property
    def units(self) -> list[Unit]:
        """What must fit on a node beside the graders, in the order in which it is placed."""
        if self.colocate:
            most = -(-self.particles // self.scorers)
            name, lower = f"scorer with {most} particles", "backend.particle_gpus or backend.scorer_gpus"
            labels = {**self.particle_labels, **self.scorer_labels}
            return [Unit(name, self.scorers, self.cpus, self._with(most), labels, lower)]
        name, lower = "scorer", "backend.scorer_gpus"
        if self.ranks > 1:
            name, lower = f"scorer of {self.ranks} ranks", "engine.args.tensor_parallel_size"
        cpus = self.cpus * self.ranks
        return [
            Unit(name, self.scorers, cpus, self.scorer_gpus, self.scorer_labels, lower),
            Unit("particle", self.particles, 0, self.particle_gpus, self.particle_labels, "backend.particle_gpus"),
        ]

    @property
    def grader(self) -> Unit:
        """The graders."""
        lower = "backend.grader_gpus"
        return Unit("grader", self.graders, self.grader_cpus, self.grader_gpus, self.grader_labels, lower)

    def without_graders(self, nodes: Sequence[Nodes]) -> tuple[int, list[Nodes]]:
        """How many graders these nodes hold, and what they leave for all others."""
        return take(self.grader, nodes, others=self.units) if self.graders else (0, list(nodes))

    def fits(self, nodes: Sequence[Nodes]) -> bool:
        """Whether these nodes hold all actors."""
        graders, rest = self.without_graders(nodes)
        return graders == self.graders and pack(self.units, rest) == [unit.count for unit in self.units]


def _each(kind: str, count: int, gpus: float, cpus: int) -> str:
    each = f"{gpus:g} GPU" if gpus else f"{cpus} CPU"
    return f"1 {kind} with {each}" if count == 1 else f"{count} {kind}s, each with {each}"


def place(
    config: RayBackend,
    nodes: Sequence[Nodes],
    *,
    particles: int,
    threads: int,
    ranks: int = 1,
    grading: Collection[Grading] = (),
) -> Placement:
    """The actors of a run on these nodes; settings that are null are derived.

    `threads` are CPU threads of one engine, or of each of the `ranks` processes that it is split over. `grading`: what
    scoring takes in graders; empty if it needs none.
    """
    known = Placement(
        particles,
        config.scorers or 1,
        particle_gpus=0.0,
        scorer_gpus=0.0,
        cpus=threads,
        ranks=ranks,
        particle_labels=config.particle_labels,
        scorer_labels=config.scorer_labels,
        colocate=config.colocate,
    )
    if not grading:
        return _sized(known, config, nodes)
    known = replace(known, graders=config.graders or 1, grader_labels=config.grader_labels)
    shares = (1.0, 0.0) if "gpu" in grading else (0.0,)
    found = []
    for share in shares if config.grader_gpus is None else (config.grader_gpus,):
        cpus = int(not share and set(grading) != {"service"})  # a service takes the time of others
        found.append(_sized(replace(known, grader_gpus=share, grader_cpus=cpus), config, nodes))
    return next((placement for placement in found if placement.fits(nodes)), found[-1])


def _sized(known: Placement, config: RayBackend, nodes: Sequence[Nodes]) -> Placement:
    """A placement with the GPUs of particles and scorers, and the number of scorers, beside its graders."""
    for_particles = [n for n in nodes if n.has(config.particle_labels)]
    for_scorers = [n for n in nodes if n.has(config.scorer_labels)]
    particle_gpus, scorer_gpus = config.particle_gpus, config.scorer_gpus
    if particle_gpus is None:
        every = total(n for n in nodes if n in for_particles or n in for_scorers)[1] - known.graders * known.grader_gpus
        enough = every >= PINNED * known.particles and total(for_particles)[1] >= max(1, known.particles)
        particle_gpus = float(enough)
    if scorer_gpus is None:
        scorer_gpus = float((total(for_scorers)[1] > 0) * known.ranks)
    placement = replace(known, particle_gpus=particle_gpus, scorer_gpus=scorer_gpus)
    if config.scorers:
        return placement
    return replace(placement, scorers=_scorers(placement, config, placement.without_graders(nodes)[1]))


def _scorers(placement: Placement, config: RayBackend, nodes: Sequence[Nodes]) -> int:
    """The most scorers that fit on these nodes with all particles; at least one.

    CPUs count only without GPUs: a GPU that has too few CPUs is reported as missing, and not left idle.
    """
    cpus, gpus = total(n for n in nodes if n.has(config.scorer_labels))
    if placement.scorer_gpus:
        most, placement = int(gpus / placement.scorer_gpus + CLOSE), replace(placement, cpus=0)
    else:
        most = int(cpus // (placement.cpus * placement.ranks))
    most = max(1, min(most, config.max_scorers or most))
    placement = replace(placement, graders=0)  # these nodes are what graders leave
    units = replace(placement, scorers=most).units
    alike = kinds(nodes, *units)
    if config.spread and (even := spread(units, alike)) is not None:
        return max(1, min(even, most))
    fitting = (number for number in range(most, 1, -1) if replace(placement, scorers=number).fits(alike))
    return next(fitting, 1)


def place_run(config: RunConfig, nodes: Sequence[Nodes], *, graders: bool = True) -> Placement:
    """`place` for a whole config, with the `graders` of its utility."""
    assert isinstance(config.backend, RayBackend)
    particles, engine = config.search.most_particles, config.engine
    grading = config.utility.all_grading if graders else frozenset()
    return place(config.backend, nodes, particles=particles, threads=engine.cpus, ranks=engine.ranks, grading=grading)


def place_engine(config: RunConfig, backend: RayBackend, nodes: Sequence[Nodes]) -> Placement:
    """`place` for a task that runs one engine and the particles in one process."""
    engine = config.engine
    return place(backend.with_(scorers=1), nodes, particles=0, threads=engine.cpus, ranks=engine.ranks)


def for_actors(engine: EngineConfig, placement: Placement) -> EngineConfig:
    """The engine's settings for this placement. What the user has set stays."""
    return engine.in_actor(gpus=placement.scorer_gpus, shared=placement.shares_gpus)
