"""What a search and its caller exchange."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from evoswarm.search.state import Measured


@dataclass(frozen=True, eq=False)
class Ask:
    """Rows to measure.

    Attributes:
        generation: 0 is the initial population.
        phase: "experts", "population", "move", "succession", "offspring" or "sample".
        particles: ids [M], unique within (generation, phase).
        rows: coefficients [M, J], float64, over the search's basis between this ask and its tell (later the basis may
            grow). M may be 0: then tell an empty list.
    """

    generation: int
    phase: str
    particles: tuple[int, ...]
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Member:
    """A current member of the population; rows are [J].

    `utility` is None after a failed evaluation. A member that never succeeded has `best_utility` None, its own row as
    `best_row` and `best_generation` -1.
    """

    particle: int
    row: np.ndarray
    utility: float | None
    best_row: np.ndarray
    best_utility: float | None
    best_generation: int


Steps = Generator[Ask, Measured, None]
"""One generation: yields each ask, receives its measurements."""
