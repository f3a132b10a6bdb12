"""How many actors of which size a run needs, and what the cluster lacks for them. Pure: knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evoswarm.config.run import RayBackend


@dataclass(frozen=True)
class Placement:
    """Actors of a run. GPUs are per actor; `cpus` is per scorer (particles and the coordinator take none)."""

    particles: int
    scorers: int
    particle_gpus: float
    scorer_gpus: float
    cpus: int

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
        if self.scorers * self.cpus > cpus + 1e-9:
            return (
                f"the run needs {self.scorers * self.cpus} CPUs ({self.scorers} scorers x {self.cpus}), the cluster "
                f"has {cpus:g}; add nodes, or lower backend.scorers or engine.threads"
            )
        return None


def place(config: RayBackend, resources: Mapping[str, float], *, particles: int, threads: int) -> Placement:
    """The actors of a run on a cluster of these resources.

    Args:
        config: the user's wishes; what is null is derived.
        resources: Ray's name for a resource to its amount in the whole cluster.
        particles: number of particle actors.
        threads: CPU threads of one engine.
    """
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    has_gpus = gpus > 0
    particle_gpus = config.particle_gpus if config.particle_gpus is not None else float(has_gpus)
    scorer_gpus = config.scorer_gpus if config.scorer_gpus is not None else float(has_gpus)
    scorers = config.scorers
    if scorers is None:
        free = gpus - particles * particle_gpus
        scorers = max(1, int(free / scorer_gpus) if scorer_gpus else int(cpus // threads))
    return Placement(particles, scorers, particle_gpus, scorer_gpus, threads)
