"""PSO-Merging: particle swarm optimization from the base, the experts and sparsified experts.

Kehao Zhang, Shaolei Zhang and Yang Feng, 2025, "PSO-Merging: Merging Models Based on Particle Swarm Optimization",
arXiv 2508.19839.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evoswarm.rows import BasisVector, SparseVector
from evoswarm.search.base import Search
from evoswarm.search.config import Evolution, MaxGenerations, Patience, Population
from evoswarm.search.operators import first_experts, improve
from evoswarm.search.rng import stream
from evoswarm.search.state import Measured, Steps
from evoswarm.search.swarm import SwarmState
from evoswarm.section import NonNegative, Rate

Particles = Annotated[
    Population,
    Field(
        description="Number of particles N, 2 to 1000: the base, n experts, and N - 1 - n sparsified experts. As "
        "published, N is 2 n + 1."
    ),
]


class PsoMerging(Evolution):
    """Particle swarm from the base, the experts and sparsified experts (PSO-Merging, arXiv 2508.19839)."""

    type: Literal["pso_merging"] = "pso_merging"
    population: Particles = 21
    max_generations: MaxGenerations = 5
    patience: Patience = None
    inertia: NonNegative = 0.2
    """w, the weight of the previous velocity."""
    cognitive: NonNegative = 2.0
    """c_1, the pull toward the particle's own best."""
    social: NonNegative = 2.0
    """c_2, the pull toward the global best."""
    density: Annotated[Rate, Field(gt=0)] = 0.2
    """Share of an expert's changes that a sparsified expert keeps; they are divided by it (DARE)."""

    persistent: ClassVar[bool] = True
    prefers_product: ClassVar[bool] = True

    @property
    def expert_places(self) -> int:
        """One particle is the base."""
        return self.population - 1

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """The published swarm, or fewer sparsified experts where the budget would not allow a move."""
        size = max(experts + 1, min(2 * experts + 1, budget // 2))
        return super().at_budget(budget, experts=experts) | {"population": size}


@dataclass
class PsoMergingState(SwarmState):
    """`particles` holds positions with their last utilities."""

    particles: Measured = field(default_factory=Measured)


class PsoMergingSearch(Search):
    """PSO-Merging (arXiv 2508.19839): plain particle swarm optimization, whose weights are not normalized.

    Population: the n successful experts in pool order; sparsified experts in pool order, again from the first one with
    new masks; the base (all coefficients 0); N particles in all. If N <= n: the best N - 1 experts and the base.
    Velocities start at 0.

    Generation t: all particles move at once, v <- w v + c_1 r_1 (p - x) + c_2 r_2 (g - x), x <- x + v, with personal
    best p (without one its term is 0) and global best g before the move. p improves on strict >.
    Draws: "move"(t, i): random(2) = r_1, r_2 of particle i.
    """

    config_class = PsoMerging
    config: PsoMerging
    state: PsoMergingState
    state_class = PsoMergingState

    def _first_basis(self, layers: int | None) -> list[BasisVector]:
        n = len(self.experts)
        places = [(self.experts[k % n], k // n) for k in range(self.config.population - 1 - n)]
        density = self.config.density
        masked = [SparseVector(name, seed=self.seed, copy=copy, density=density) for name, copy in places]
        return [*super()._first_basis(layers), *masked]

    def _expert_rows(self) -> np.ndarray:
        return np.eye(len(self.experts), len(self.basis))

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.experts)
        good = np.array([experts.succeeded[k % n] for k in range(len(self.basis))])
        base, masked = np.zeros((1, len(self.basis))), np.eye(len(self.basis))[n:][good[n:]]
        return first_experts(experts.utilities, self.config.expert_places), np.concatenate([masked, base])

    def _begin(self, population: Measured) -> None:
        state = self.state
        state.particles, state.bests = population, population.take(slice(None))
        state.velocities = np.zeros_like(population.rows)

    def _advance(self, t: int) -> Steps:
        state, x, config = self.state, self.state.particles.rows, self.config
        r = np.array([stream(self.seed, "move", t, i).random(2) for i in range(len(x))])
        own = np.where(state.bests.succeeded[:, None], state.bests.rows - x, 0.0)
        shared = state.best.rows[0] - x
        pulls = config.cognitive * r[:, :1] * own + config.social * r[:, 1:] * shared
        state.velocities = config.inertia * state.velocities + pulls
        everyone = np.arange(len(x))
        state.particles = yield self._ask(t, "move", everyone, x + state.velocities)
        improve(state.bests, everyone, state.particles)

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.particles, self.state.bests
