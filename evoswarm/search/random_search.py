"""Random search: the control at the same number of evaluations."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from evoswarm.search.ask import Steps
from evoswarm.search.config import Evolution, Patience
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch
from evoswarm.section import Positive


class RandomSearch(Evolution):
    """Random mixes of all experts, nothing learned: the control for every other search."""

    type: Literal["random_search"] = "random_search"
    patience: Patience = None
    concentration: Positive = 1.0
    """Rows are drawn from Dirichlet(concentration): 1 is uniform on the simplex, below 1 is closer to single
    experts."""
    spread: Positive = 1.0
    """Rows are stretched away from the uniform mix by this factor: above 1 they leave the convex hull. They still sum
    to 1."""

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """It learns nothing, so small generations only fill the budget better."""
        return super().at_budget(budget, experts=experts) | {"population": 10}


class RandomMixSearch(SamplingSearch):
    """Random search over affine mixes: nothing is learned, the best measured row wins.

    Generation t > 0: N fresh rows u + spread (d - u), d ~ Dirichlet(concentration) over the successful experts, u their
    uniform mix. Rows sum to 1.
    Draws: "sample"(t, i): dirichlet([concentration, ...]).

    Assumption: good rows are on the simplex of the experts, or a little outside of it (spread > 1).
    """

    config_class = RandomSearch
    config: RandomSearch

    def _advance(self, t: int) -> Steps:
        rows = np.array([self._sample(t, i, self._good) for i in range(self.config.population)])
        self._keep((yield self._ask_samples(t, rows)))

    def _sample(self, t: int, i: int, good: np.ndarray) -> np.ndarray:
        u = np.zeros(len(good))
        u[good] = 1 / good.sum()
        d = np.zeros(len(good))
        d[good] = stream(self.seed, "sample", t, i).dirichlet(np.full(good.sum(), self.config.concentration))
        return u + self.config.spread * (d - u)
