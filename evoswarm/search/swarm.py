"""The move of a particle swarm, which Model Swarms and GENOME+ share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from evoswarm.search.config import Pulls
from evoswarm.search.operators import pull
from evoswarm.search.rng import stream
from evoswarm.search.state import Measured, State, no_rows


@dataclass
class SwarmState(State):
    """Velocities [P, J] and personal bests [P] of the particles, and the step length of the next move."""

    velocities: np.ndarray = field(default_factory=no_rows)
    bests: Measured = field(default_factory=Measured)
    step_length: float = 0.0


def move(
    state: SwarmState,
    x: np.ndarray,
    *,
    pulls: Pulls,
    seed: int,
    generation: int,
    random: bool = True,
    leaders: np.ndarray | None = None,
) -> np.ndarray:
    """Move particles at x [P, J] at once: set their velocities v (see `pull`), return the new positions x + step v.

    p is the personal best, g and w the global best and worst before the move; f_v, f_p, f_g and f_w are inertia,
    cognitive, social and repel of `pulls`. r ~ U(0, 1) per particle and term, or 1 if not `random`. With `leaders`
    [P, J], each particle has its own g.
    Draws: "move"(generation, i): random(4) = r_v, r_p, r_g, r_w.
    """
    draws = [stream(seed, "move", generation, i).random(4) if random else np.ones(4) for i in range(len(x))]
    state.velocities = pull(
        x,
        v=state.velocities,
        p=state.bests.rows,
        g=state.best.rows[0] if leaders is None else leaders,
        w=state.worst.rows[0],
        has_best=state.bests.succeeded,
        weights=np.reshape(draws, (len(x), 4)) * [pulls.inertia, pulls.cognitive, pulls.social, pulls.repel],
    )
    return x + state.step_length * state.velocities
