"""EvoGM: candidates from a sampler that is learned from winners and losers.

Tao Jiang and others, 2026, "EvoGM: Learning to Merge LLMs via Evolutionary Generative Optimization", arXiv 2605.29295.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from evoswarm.search.config import Evolution, MaxGenerations, Patience
from evoswarm.search.generators import improve
from evoswarm.search.operators import distinct_top, top
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch, SamplingState
from evoswarm.search.state import Measured, Steps, no_integers, no_rows
from evoswarm.section import Positive, Rate


class EvoGM(Evolution):
    """Candidates from networks that learn to turn losers into winners (EvoGM, arXiv 2605.29295)."""

    type: Literal["evogm"] = "evogm"
    max_generations: MaxGenerations = 6
    patience: Patience = None
    round_generations: int = Field(3, ge=1)
    """After this many generations the best rows become the new experts (EvoGM: 3, in 2 rounds)."""
    winners: Rate = 0.3
    """Share of the round's rows that are winners."""
    epochs: int = Field(200, ge=1)
    """Steps of training in each generation (EvoGM code)."""
    learning_rate: Positive = 1e-4
    """Learning rate of Adam (EvoGM code)."""

    prefers_product: ClassVar[bool] = True


@dataclass
class EvoGMState(SamplingState):
    """`elites` [n, J]: the experts of this round. `history`: its rows, as coefficients [M, n] of the elites.

    `members` [P]: indices of the population in the history.
    """

    elites: np.ndarray = field(default_factory=no_rows)
    history: Measured = field(default_factory=Measured)
    members: np.ndarray = field(default_factory=no_integers)


class EvoGMSearch(SamplingSearch):
    """EvoGM (arXiv 2605.29295). A row is base + sum_j c_j elite_j; a round's c_j are in [-1, 1].

    Generation 0: the experts, their mean, and rows of U(-1, 1), N rows in all. They are the population.
    Generation t > 0: networks are trained from new on all rows of the round (see `generators`): the best `winners` are
    winners, the others losers. The population goes through the network from losers to winners, and the results are
    measured. The best N of both are the next population.
    After `round_generations` a round ends: its best n distinct rows are the experts of the next one, which starts with
    them, their mean and rows of U(-1, 1).
    Draws: "round"(t, i) of row i: uniform(-1, 1, n). "train"(t, 0): the weights, then the batches.

    Failed rows are not in the history, failed experts not in the elites.
    """

    config_class = EvoGM
    config: EvoGM
    state: EvoGMState
    state_class = EvoGMState

    def most_rows(self, t: int) -> int:
        fresh = max(0, self.config.population - len(self.state.elites)) if self._starts_round(t) else 0
        return self.config.population + fresh

    def _starts_round(self, t: int) -> bool:
        return t > 1 and (t - 1) % self.config.round_generations == 0

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        good = np.flatnonzero(experts.succeeded)
        return good, self._fill(0, len(good)) @ experts.rows[good]

    def _fill(self, t: int, n: int) -> np.ndarray:
        """Coefficients [N - n, n]: the mean of n elites, and random ones."""
        rows = [stream(self.seed, "round", t, i).uniform(-1, 1, n) for i in range(n + 1, self.config.population)]
        mean = [np.full(n, 1 / n)] if self.config.population > n else []
        return np.reshape([*mean, *rows], (-1, n))

    def _begin(self, population: Measured) -> None:
        self._keep(population)
        self.state.elites = self._expert_rows()[self._good]
        self._remember(population, population.rows[:, self._good])

    def _remember(self, fresh: Measured, coefficients: np.ndarray) -> None:
        """Add measured rows to the history, and select the population."""
        state = self.state
        known = Measured(coefficients, *(getattr(fresh, n) for n in ("utilities", "generations", "particles")))
        known = known.take(known.succeeded)
        state.members = np.concatenate([state.members, np.arange(len(known)) + len(state.history)])
        state.history = state.history.join(known) if len(state.history) else known
        state.members = state.members[top(state.history.utilities[state.members], self.config.population)]

    def _advance(self, t: int) -> Steps:
        state = self.state
        if self._starts_round(t):
            best = distinct_top(state.history, len(state.elites))
            state.elites, coefficients = best.rows @ state.elites, np.eye(len(best))
            state.history, state.members = Measured(), no_integers()
            self._remember(best, coefficients)
            more = self._fill(t, len(best))
            fresh = yield self._ask(t, "population", range(len(more)), more @ state.elites)
            self._remember(fresh, more)
        coefficients = self._generated(t)
        fresh = yield self._ask_samples(t, coefficients @ state.elites)
        self._remember(fresh, coefficients)
        self._keep(fresh)

    def _generated(self, t: int) -> np.ndarray:
        """Coefficients [N, n] of the population, improved."""
        config, history, rng = self.config, self.state.history, stream(self.seed, "train", t)
        order = top(history.utilities, len(history))
        count = min(max(1, int(len(order) * config.winners)), len(order) - 1)
        winners, losers = history.rows[order[:count]], history.rows[order[count:]]
        rows = history.rows[self.state.members]
        return improve(rows, winners, losers, rng=rng, epochs=config.epochs, rate=config.learning_rate)
