"""Model soups: the mean of all experts, or of those that help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from evoswarm.search.config import Evolution, MaxGenerations, Patience
from evoswarm.search.sampling import SamplingSearch, SamplingState
from evoswarm.search.state import Measured, Steps, no_numbers


class GreedySoup(Evolution):
    """Add experts to the mean, best first, where validation does not get worse (model soups, arXiv 2203.05482)."""

    type: Literal["greedy_soup"] = "greedy_soup"
    max_generations: MaxGenerations = 1000
    patience: Patience = None


class UniformSoup(Evolution):
    """The mean of all experts (model soups, arXiv 2203.05482)."""

    type: Literal["uniform_soup"] = "uniform_soup"
    max_generations: MaxGenerations = 0
    patience: Patience = None

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """There is nothing to repeat."""
        return {"max_evaluations": None}


@dataclass
class SoupState(SamplingState):
    """`chosen` [n]: 1 for each expert of the soup, else 0."""

    chosen: np.ndarray = field(default_factory=no_numbers)


class GreedySoupSearch(SamplingSearch):
    """One expert more in each generation, from the best one on.

    Generation 0: the experts; the soup is the best one. Generation t > 0: the mean of the soup's experts and of the
    expert at rank t (from 0). It becomes the soup, and the winner, if its utility is not lower. Ranks are by utility;
    ties are in pool order. Failed experts are left out.
    Source: Wortsman et al. 2022, Model soups (arXiv 2203.05482), recipe 1.
    """

    config_class = GreedySoup
    state: SoupState
    state_class = SoupState

    @property
    def _order(self) -> np.ndarray:
        ranked = np.argsort(-self.state.expert_utilities, kind="stable")
        return ranked[self._good[ranked]]

    def most_rows(self, t: int) -> int:
        """The mean with one more expert."""
        return 1

    @property
    def stop_reason(self) -> str | None:
        """See `Search`; "finished" when every expert was tried."""
        finished = self.generation >= 0 and self.generation >= len(self._order) - 1
        return "finished" if finished else super().stop_reason

    def _begin(self, population: Measured) -> None:
        super()._begin(population)
        self.state.chosen = np.zeros(len(self.experts))
        self.state.chosen[self._order[0]] = 1.0

    def _advance(self, t: int) -> Steps:
        more = self.state.chosen.copy()
        more[self._order[t]] = 1.0
        fresh = yield self._ask_samples(t, (more / more.sum())[None, :])
        self._keep(fresh)
        if fresh.utilities[0] >= self.state.best.utilities[0]:
            self.state.chosen, self.state.best = more, fresh


class UniformSoupSearch(SamplingSearch):
    """The mean of the successful experts, whatever its utility is: nothing is searched.

    Source: Wortsman et al. 2022, Model soups (arXiv 2203.05482).
    """

    config_class = UniformSoup

    @property
    def stop_reason(self) -> str | None:
        """ "finished" after generation 0."""
        return "finished" if self.generation >= 0 else None

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        return np.flatnonzero(experts.succeeded), (self._good / self._good.sum())[None, :]

    def _begin(self, population: Measured) -> None:
        super()._begin(population)
        if population.succeeded[-1]:
            self.state.best = population.take([-1])

    def _advance(self, t: int) -> Steps:
        raise AssertionError("there is no generation 1")
