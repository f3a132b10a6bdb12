"""Model soups: the mean of all experts, or of those that help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from evoswarm.search.config import Evolution, MaxGenerations, Patience
from evoswarm.search.greedy import greedy_soup
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
    """`means` [t]: the utilities of the means so far."""

    means: np.ndarray = field(default_factory=no_numbers)


class GreedySoupSearch(SamplingSearch):
    """One expert more in each generation, from the best one on.

    Generation 0: the experts; the soup is the best one. Generation t > 0: the mean of the soup's experts and of the
    expert at rank t (from 0). It becomes the soup, and the winner, if its utility is not lower. Ranks are by utility;
    ties are in pool order. Failed experts are left out.
    Source: see `greedy_soup`.
    """

    config_class = GreedySoup
    state: SoupState
    state_class = SoupState

    def most_rows(self, t: int) -> int:
        """The mean with one more expert."""
        return 1

    @property
    def stop_reason(self) -> str | None:
        """See `Search`; "finished" when every expert was tried."""
        finished = self.generation >= 0 and self.generation >= self._good.sum() - 1
        return "finished" if finished else super().stop_reason

    def _advance(self, t: int) -> Steps:
        rule = greedy_soup(self.state.expert_utilities)
        mean = next(rule)
        for utility in self.state.means:
            mean = rule.send(utility)
        fresh = yield self._ask_samples(t, mean[None, :])
        self._keep(fresh)
        self.state.means = np.append(self.state.means, fresh.utilities)
        if fresh.utilities[0] >= self.state.best.utilities[0]:
            self.state.best = fresh


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
        mean = int(self._good.sum())
        if population.succeeded[mean]:
            self.state.best = population.take([mean])

    def _advance(self, t: int) -> Steps:
        raise AssertionError("there is no generation 1")
