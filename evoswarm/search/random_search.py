"""Random search: the control at the same number of evaluations."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from evoswarm.search.config import Evolution, Patience
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch
from evoswarm.search.state import Steps
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
    uniform mix. Rows sum to 1. With a start row s they are s + spread (d - u).
    Draws: "sample"(t, i): dirichlet([concentration, ...]).

    Assumption: good rows are on the simplex of the experts, or a little outside of it (spread > 1).
    """

    config_class = RandomSearch
    config: RandomSearch

    def _advance(self, t: int) -> Steps:
        good = self._good
        u, d = good / good.sum(), np.zeros((self.config.population, len(good)))
        for i, line in enumerate(d):
            line[good] = stream(self.seed, "sample", t, i).dirichlet(np.full(good.sum(), self.config.concentration))
        self._keep((yield self._ask_samples(t, self._middle + self.config.spread * (d - u))))
