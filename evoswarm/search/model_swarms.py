"""Model Swarms: particle swarm optimization over experts.

Shangbin Feng and others, 2024, "Model Swarms: Collaborative Search to Adapt LLM Experts via Swarm Intelligence",
arXiv 2410.11163.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from evoswarm.search.base import Search
from evoswarm.search.config import Evolution, Pulls
from evoswarm.search.operators import first_experts, improve, mix
from evoswarm.search.rng import stream
from evoswarm.search.state import Measured, Steps, no_integers
from evoswarm.search.swarm import SwarmState, move
from evoswarm.section import NonNegative, Rate


class Swarming(Pulls, Evolution):
    """The settings of Model Swarms."""

    min_step_length: NonNegative = 0.1
    """The step length does not fall below this (MS code)."""
    restart_patience: Rate | None = 0.5
    """A particle whose best is older than this share of `patience` returns to it with velocity 0 (MS code).
    null: never."""
    velocity: Literal["random", "zero", "best"] = "random"
    """First velocity: toward a random other particle, zero, or toward the global best (MS code)."""
    weight_randomness: bool = True
    """Multiply each pull by a fresh U(0, 1) per particle and term (MS, eq. 1). Without it: 23.5 % worse (MS
    ablation)."""
    drop_generations: Rate = 0.0
    """dropout-K: probability that a whole generation moves without being evaluated (MS, section 5)."""
    drop_particles: Rate = 0.0
    """dropout-N: probability that one particle moves without being evaluated (MS, section 5)."""

    persistent: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Sequence[float]]] = {
        "inertia": [0.1, 0.2, 0.3],
        "cognitive": [0.1, 0.2, 0.3, 0.4, 0.5],
        "social": [0.2, 0.3, 0.4, 0.5, 0.6],
        "repel": [0.01, 0.05, 0.1],
        "step_length": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    }

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """Restarts, which are a share of patience, happen at the same age as by default."""
        settings = super().at_budget(budget, experts=experts)
        return settings | {"patience": budget, "restart_patience": min(1, 4.5 / budget)}

    @model_validator(mode="before")
    @classmethod
    def _no_restart_without_patience(cls, data: Any) -> Any:
        """Set here instead of as a default, so that a dumped config can be read again."""
        without = isinstance(data, dict) and data.get("patience", 1) is None
        return {"restart_patience": None} | data if without else data

    @model_validator(mode="after")
    def _restart_needs_patience(self) -> Self:
        if self.patience is None and self.restart_patience is not None:
            raise ValueError("restart_patience is a share of patience; set patience, or restart_patience: null")
        return self


class ModelSwarms(Swarming):
    """Particle swarm optimization over experts (Model Swarms, arXiv 2410.11163, section 2)."""

    type: Literal["model_swarms"] = "model_swarms"


@dataclass
class ModelSwarmsState(SwarmState):
    """`particles` holds positions with their last utilities."""

    particles: Measured = field(default_factory=Measured)
    clocks: np.ndarray = field(default_factory=no_integers)
    """Per particle: generation of its personal best or of its last restart, whichever is later."""


class ModelSwarmsSearch(Search):
    """Model Swarms (arXiv 2410.11163). N particles with positions x, velocities v, personal bests p.

    Population: the n successful experts in pool order, then N - n children w x_a + (1 - w) x_b of two distinct earlier
    positions, w = 2 U(0, 1). If N < n: the best N experts, best first (ties by index). Failed experts are left out.
    Draws: "populate"(0, i): choice(i, 2, replace=False), random().

    Velocity: "random" x_j - x_i for another j; "zero"; "best" g - x_i.
    Draws: "velocity"(0, i): j = integers(N - 1), plus 1 where j >= i.

    Generation t: all particles move at once, see `swarm.move` (r is 1 without weight_randomness); then
    step <- max(factor step, min_step). p improves on strict >.

    Restart: if the personal best and the last restart of a particle are both restart_patience * patience (at least 1)
    or more finished generations old, it first does x <- p, v <- 0, and its clock restarts. Then it moves as usual.

    Dropout: a dropped particle moves, is not evaluated, and keeps its last utility. Draws: "drop_generation"(t, 0):
    random() < drop_generations; "drop_particle"(t, i): random() < drop_particles. A dropped generation counts.

    A failed particle moves on; its utility is None for that generation. A particle that never succeeded has no personal
    best and does not restart.

    Every move is affine: the coefficients of a particle always sum to 1.
    """

    config_class: type[Swarming] = ModelSwarms
    config: Swarming
    state: ModelSwarmsState
    state_class: type[ModelSwarmsState] = ModelSwarmsState

    @property
    def step_length(self) -> float:
        return self.state.step_length

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        index = first_experts(experts.utilities, self.config.population)
        rows = np.zeros((self.config.population, len(self.basis)))
        rows[: len(index)] = experts.rows[index]
        for i in range(len(index), len(rows)):
            rng = stream(self.seed, "populate", 0, i)
            a, b = rng.choice(i, 2, replace=False)
            rows[i] = mix(rows[a], rows[b], 2 * rng.random())
        return index, rows[len(index) :]

    def _begin(self, population: Measured) -> None:
        state = self.state
        state.particles, state.bests = population, population.take(slice(None))
        state.clocks = np.zeros(len(population), dtype=np.int64)
        state.velocities = self._first_velocities(population.rows)
        state.step_length = self.config.step_length

    def _first_velocities(self, x: np.ndarray) -> np.ndarray:
        if self.config.velocity == "zero":
            return np.zeros_like(x)
        if self.config.velocity == "best":
            return self.state.best.rows - x
        others = [int(stream(self.seed, "velocity", 0, i).integers(len(x) - 1)) for i in range(len(x))]
        return x[[j + (j >= i) for i, j in enumerate(others)]] - x

    def _advance(self, t: int) -> Steps:
        self._restart()
        state, config = self.state, self.config
        particles, random, leaders = state.particles, config.weight_randomness, self._leaders(t)
        particles.rows = move(
            state, particles.rows, pulls=config, seed=self.seed, generation=t, random=random, leaders=leaders
        )
        state.step_length = max(config.step_length_factor * state.step_length, config.min_step_length)
        kept = np.flatnonzero(~self._dropped(t))
        fresh = yield self._ask(t, "move", kept, particles.rows[kept])
        particles.put(kept, fresh)
        state.clocks[self._improve(kept, fresh)] = t

    def _leaders(self, t: int) -> np.ndarray | None:
        """The positions [N, J] that pull the particles; None: the global best."""
        return None

    def _improve(self, kept: np.ndarray, fresh: Measured) -> np.ndarray:
        """Update the personal bests of the particles `kept`. Returns those that improved."""
        return improve(self.state.bests, kept, fresh)

    def _restart(self) -> None:
        if self.config.patience is None or self.config.restart_patience is None:
            return
        state, limit = self.state, max(1.0, self.config.restart_patience * self.config.patience)
        stale = state.bests.succeeded & (self.generation - state.clocks >= limit)
        state.particles.rows[stale] = state.bests.rows[stale]
        state.velocities[stale] = 0
        state.clocks[stale] = self.generation

    def _dropped(self, t: int) -> np.ndarray:
        n, rate = len(self.state.particles), self.config.drop_particles
        if stream(self.seed, "drop_generation", t).random() < self.config.drop_generations:
            return np.ones(n, dtype=bool)
        return np.array([stream(self.seed, "drop_particle", t, i).random() < rate for i in range(n)])

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.particles, self.state.bests
