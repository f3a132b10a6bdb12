"""Random search: the honest control at the same number of evaluations."""

from __future__ import annotations

import numpy as np

from evoswarm.config.search import RandomSearch
from evoswarm.search.base import Steps
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch


class RandomMixSearch(SamplingSearch):
    """Random search over affine mixes: nothing is learned, the best of everything measured wins.

    Generation t > 0: N fresh rows u + spread (d - u), d ~ Dirichlet(concentration) over the successful experts, u their
    uniform mix. Rows sum to 1.
    Draws: "sample"(t, i): dirichlet([concentration, ...]).

    Assumption: utility is worth sampling on the simplex of the experts, or a little outside of it (spread > 1).
    """

    algorithm = "random_search"
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
