"""Random search: the honest control at the same number of evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from evoswarm.config.search import RandomSearch
from evoswarm.search.base import Search, Steps
from evoswarm.search.operators import distinct_top
from evoswarm.search.rng import stream
from evoswarm.search.state import FAILED, Measured, State


@dataclass
class RandomState(State):
    """`samples`: the last generation; `archive`: the best distinct rows so far."""

    samples: Measured = field(default_factory=Measured)
    archive: Measured = field(default_factory=Measured)


class RandomMixSearch(Search):
    """Random search over affine mixes: nothing is learned, the best of everything measured wins.

    Generation 0: the successful experts. Generation t: N fresh rows u + spread (d - u), d ~ Dirichlet(concentration)
    over the successful experts, u their uniform mix. A failed expert has coefficient 0.
    Draws: "sample"(t, i): dirichlet([concentration, ...]).

    The ranking keeps the best max(ensemble_size, N) distinct rows, experts included. Rows sum to 1.
    Assumption: utility is worth sampling on the simplex of the experts, or a little outside of it (spread > 1).
    """

    algorithm = "random_search"
    config: RandomSearch
    state: RandomState
    state_class = RandomState

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        return np.flatnonzero(experts.succeeded), np.zeros((0, len(self.basis)))

    def _begin(self, population: Measured) -> None:
        self._keep(population)

    def _advance(self, t: int) -> Steps:
        good = self.state.expert_utilities != FAILED
        rows = np.array([self._sample(t, i, good) for i in range(self.config.population)])
        self._keep((yield self._ask(t, "sample", range(len(rows)), rows, no_better=self._lowest_kept(len(rows)))))

    def _sample(self, t: int, i: int, good: np.ndarray) -> np.ndarray:
        u = np.zeros(len(good))
        u[good] = 1 / good.sum()
        d = np.zeros(len(good))
        d[good] = stream(self.seed, "sample", t, i).dirichlet(np.full(good.sum(), self.config.concentration))
        return u + self.config.spread * (d - u)

    def _keep(self, fresh: Measured) -> None:
        state = self.state
        state.samples = fresh
        known = state.archive.join(fresh) if len(state.archive) else fresh
        state.archive = distinct_top(known, self._size)

    @property
    def _size(self) -> int:
        return max(self.config.ensemble_size, self.config.population)

    def _lowest_kept(self, rows: int) -> np.ndarray | None:
        """What a sample has to beat; among equals the earlier one is kept."""
        full = len(self.state.archive) == self._size
        return np.full(rows, self.state.archive.utilities.min()) if full else None

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.samples, self.state.samples

    def _candidates(self) -> Measured:
        return self.state.archive
