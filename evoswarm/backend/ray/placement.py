"""How many actors of which size a run needs, and what the cluster lacks for them. Pure: knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evoswarm.config.run import EngineConfig, RayBackend, VllmEngine

VLLM_SHARE = 0.9
"""Part of its share of a GPU that vLLM fills (its own default for a whole GPU); what is left is for CUDA itself."""


@dataclass(frozen=True)
class Placement:
    """Actors of a run.

    GPUs are per actor; `cpus` is per scorer (particles and the coordinator take none). `ranks`: processes that one
    engine is split over, each with an equal share of the scorer's GPUs and `cpus` CPUs.
    """

    particles: int
    scorers: int
    particle_gpus: float
    scorer_gpus: float
    cpus: int
    ranks: int = 1

    @property
    def gpus(self) -> float:
        """GPUs of all actors together."""
        return self.particles * self.particle_gpus + self.scorers * self.scorer_gpus

    def lacks(self, resources: Mapping[str, float]) -> str | None:
        """What is missing in a cluster of these resources, in a sentence; None if the run fits."""
        gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
        if self.gpus > gpus + 1e-9:
            return (
                f"the run needs {self.gpus:g} GPUs ({self.particles} particles x {self.particle_gpus:g} + "
                f"{self.scorers} scorers x {self.scorer_gpus:g}), the cluster has {gpus:g}; add nodes, or lower "
                "search.population, backend.particle_gpus (a fraction or 0) or backend.scorers"
            )
        if self.scorers * self.ranks * self.cpus > cpus + 1e-9:
            each = self.ranks * self.cpus
            return (
                f"the run needs {self.scorers * each} CPUs ({self.scorers} scorers x {each}), the cluster "
                f"has {cpus:g}; add nodes, or lower backend.scorers or engine.threads"
            )
        return None

    @property
    def shares_gpus(self) -> bool:
        """Whether an engine has only a part of a GPU."""
        return 0 < self.scorer_gpus < 1

    @property
    def bundles(self) -> list[dict[str, float]] | None:
        """One bundle for each rank of an engine that is split over GPUs; None for one that is a single actor."""
        if self.ranks == 1 or not self.scorer_gpus:
            return None
        return [{"CPU": float(self.cpus), "GPU": self.scorer_gpus / self.ranks} for _ in range(self.ranks)]


def place(
    config: RayBackend, resources: Mapping[str, float], *, particles: int, threads: int, ranks: int = 1
) -> Placement:
    """The actors of a run on a cluster of these resources.

    Args:
        config: the user's wishes; what is null is derived.
        resources: Ray's name for a resource to its amount in the whole cluster.
        particles: number of particle actors.
        threads: CPU threads of one engine, or of each of its ranks.
        ranks: processes that one engine is split over.
    """
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    has_gpus = gpus > 0
    particle_gpus = config.particle_gpus if config.particle_gpus is not None else float(has_gpus)
    scorer_gpus = config.scorer_gpus if config.scorer_gpus is not None else float(has_gpus * ranks)
    scorers = config.scorers
    if scorers is None:
        free = gpus - particles * particle_gpus
        scorers = max(1, int(free / scorer_gpus) if scorer_gpus else int(cpus // (threads * ranks)))
    return Placement(particles, scorers, particle_gpus, scorer_gpus, threads, ranks)


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
