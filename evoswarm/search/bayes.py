"""Composite Bayesian optimization: a surrogate of the outcome on every validation example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evoswarm.errors import UserError
from evoswarm.search.config import Evolution, Patience, Population
from evoswarm.search.forecast import Forecast
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch, SamplingState
from evoswarm.search.state import FAILED, Measured, Outcomes, Steps, no_numbers
from evoswarm.search.surrogate import Surrogate
from evoswarm.search.surrogate.propose import Box, Region, Simplex, optima
from evoswarm.section import NonNegative, Positive

STARTS = 8
"""Starts of each optimization of the expected utility."""
FINAL_WEIGHTS = 16
"""Weights whose optima are averaged at the end."""
LOW, HIGH = -0.5, 1.5
"""Bounds of a coefficient."""


class Bayes(Evolution):
    """Composite Bayesian optimization (arXiv 1906.01537) over the right answers' log-probabilities of all examples.

    It measures the experts, the base and the mean of the experts, then batches of `population` rows, and at the end the
    mean of the optima. It needs far fewer evaluations than the other searches.
    """

    type: Literal["bayes"] = "bayes"
    population: Annotated[Population, Field(ge=1)] = 8
    max_evaluations: int | None = Field(40, ge=1)
    """Measure at most this many rows, including the initial experts; null: until `min_gain` ends the search."""
    patience: Patience = None
    radius: Positive = 0.2
    """From the second batch on, a row differs by at most this from the best measured row in every coefficient."""
    min_gain: NonNegative = 0.002
    """Stop early when the surrogate expects no row that is better by this; 0: never."""

    outcomes: ClassVar[bool] = True
    logprobs: ClassVar[bool] = True
    prefers_product: ClassVar[bool] = True

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """It uses the whole budget."""
        return super().at_budget(budget, experts=experts) | {"min_gain": 0}

    def least(self, experts: int) -> int:
        """The experts, the base and the mean of the experts, and what `start` needs at most."""
        start = experts if self.start == "greedy_soup" else 1 if isinstance(self.start, dict) else 0
        return experts + 2 + start


def no_outcomes() -> np.ndarray:
    """No row and no example."""
    return np.zeros((0, 0, 3))


@dataclass
class BayesState(SamplingState):
    """All rows that were measured successfully, in order, and what was learned from them.

    `outcomes` [n, E, 3]: score, log-probability of the right answer, and whether that is known (0 or 1). `weights` [E]:
    share of each example in the utility. `expected`: the forecast of the last generation. `ended`: why the mean of the
    optima was measured last; empty if it was not.
    """

    told: Measured = field(default_factory=Measured)
    outcomes: np.ndarray = field(default_factory=no_outcomes)
    weights: np.ndarray = field(default_factory=no_numbers)
    expected: Forecast = field(default_factory=Forecast)
    ended: str = ""


class BayesSearch(SamplingSearch):
    """One Gaussian process per validation example, on the log-odds of the right answer, calibrated to P(right).

    Generation 0: the experts, then the base (all coefficients 0), the mean of the successful experts, a start row.
    Generation t > 0: N rows (fewer at the end of the budget). The first maximizes the expected utility, the others the
    expected utility under weights of the examples drawn from Dirichlet(1, ..., 1), a Bayesian bootstrap. In generation
    1 rows are on the simplex, later within `radius` of the measured row with the highest expected utility. The search
    does not end before a batch off the simplex.
    Last generation, when the budget is used or the expected gain is below `min_gain`: the mean of the optima under 16
    bootstrap weights. It is the winner even if another row was measured higher, because the highest of many utilities
    owes part of its lead to luck. Only if the mean fails, or is below a row of generation 0, the highest row wins.
    Draws: "bayes"(t, i): dirichlet([1, ...] of E) except for row 0, then the starts of row i; "bayes mean"(t, i): the
    same for the i-th optimum of the mean.

    Assumption: P(right) is smooth in the coefficients. Without log-probabilities, only scores are learned from.
    Source: Astudillo & Frazier 2019 (arXiv 1906.01537), with posterior means in place of expected improvement.
    """

    config_class = Bayes
    config: Bayes
    state: BayesState
    state_class = BayesState

    def __init__(self, config: Bayes, *, experts: Sequence[str], seed: int, layers: int | None = None) -> None:
        super().__init__(config, experts=experts, seed=seed, layers=layers)
        n, limit = len(experts), config.max_evaluations
        soup, recipe = config.start == "greedy_soup", isinstance(config.start, dict)
        first = config.least(n)
        if limit is not None and limit < first:
            start = f", and up to {n} for search.start: greedy_soup" if soup else ", and search.start" if recipe else ""
            raise UserError(
                f"search.max_evaluations is {limit}, but type bayes starts with {first}: {n} experts, the base and the "
                f"mean of the experts{start}; set it to {first + 30} or more, or use fewer experts"
            )

    def most_rows(self, t: int) -> int:
        """The mean of the optima, and after it at least one more row."""
        return 2 if self.state.ended else 1

    @property
    def stop_reason(self) -> str | None:
        """See `Search`; "converged" when the surrogate expects no gain."""
        return "converged" if self.state.ended == "converged" else super().stop_reason

    @property
    def forecast(self) -> Forecast | None:
        """See `Search`."""
        return self.state.expected if len(self.state.expected.expected) else None

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        rows = np.zeros((2, len(self.experts)))
        rows[1, self._good] = 1 / self._good.sum()
        return np.flatnonzero(experts.succeeded), rows

    def _learn(self, fresh: Measured, outcomes: Outcomes) -> None:
        state, good = self.state, fresh.succeeded
        known = ~np.isnan(outcomes.gold)
        arrays = np.stack([outcomes.scores, np.where(known, outcomes.gold, 0.0), known], axis=-1)[good]
        first = not len(state.told)
        state.told = fresh.take(good) if first else state.told.join(fresh.take(good))
        state.outcomes = arrays if first else np.concatenate([state.outcomes, arrays])
        state.weights = outcomes.weights.copy()
        state.expected.utilities = np.where(good, outcomes.scores @ outcomes.weights, FAILED)

    def _advance(self, t: int) -> Steps:
        state = self.state
        surrogate = self._surrogate()
        expected = surrogate.utility(surrogate.rows, state.weights)
        center = surrogate.rows[expected.argmax()]
        region: Region = Simplex(center) if t == 1 else Box(center, self.config.radius, LOW, HIGH)
        rows = self._optima(surrogate, region, "bayes", t, max(1, self._room))
        gain = float(surrogate.utility(rows[:1], state.weights)[0] - expected.max())
        state.ended = self._end(t, gain)
        if state.ended:
            rows = self._optima(surrogate, region, "bayes mean", t, FINAL_WEIGHTS + 1)[1:].mean(0, keepdims=True)
        state.expected = Forecast(*surrogate.forecast(rows, state.weights), gain=gain)
        fresh = yield self._ask(t, "mean" if state.ended else "sample", range(len(rows)), self._whole(rows))
        self._keep(fresh)
        if state.ended and fresh.utilities[0] >= state.told.utilities[state.told.generations == 0].max():
            state.best = fresh

    def optimum(self, weights: np.ndarray) -> tuple[np.ndarray, float, float]:
        """The row [J] near the measured ones whose expected mean score is highest under other weights [E] of examples.

        Returns:
            The row, its expected mean score, and the standard deviation of that. The state does not change.
        """
        surrogate = self._surrogate()
        center = surrogate.rows[surrogate.utility(surrogate.rows, weights).argmax()]
        region = Box(center, self.config.radius, LOW, HIGH)
        starts = region.starts(STARTS, stream(self.seed, "bayes optimum"))
        rows = optima(surrogate, region, weights[None], starts[None])
        means, deviations = surrogate.forecast(rows, weights)
        return self._whole(rows)[0], float(means[0]), float(deviations[0])

    def _surrogate(self) -> Surrogate:
        """Fitted to all rows so far."""
        scores, gold, known = np.moveaxis(self.state.outcomes, -1, 0)
        return Surrogate(self.state.told.rows[:, self._good], np.where(known, gold, np.nan), scores)

    @property
    def _room(self) -> int:
        """Rows of the next batch, which leaves one for the mean."""
        limit, size = self.config.max_evaluations, self.config.population
        return size if limit is None else min(size, limit - self.state.evaluations - 1)

    def _end(self, t: int, gain: float) -> str:
        """Why generation t is the last; empty if it is not."""
        if t > 1 and gain < self.config.min_gain and self.config.min_gain > 0:
            return "converged"
        if t >= self.config.max_generations:
            return "max_generations"
        return "max_evaluations" if self._room < 1 else ""

    def _optima(self, surrogate: Surrogate, region: Region, purpose: str, t: int, count: int) -> np.ndarray:
        """Optima [count, J]: the first under the utility's own example weights, the others under bootstrap weights."""
        own = self.state.weights
        streams = [stream(self.seed, purpose, t, i) for i in range(count)]
        drawn = [own, *(own * rng.dirichlet(np.ones(len(own))) for rng in streams[1:])]
        weights = np.array([w / w.sum() for w in drawn])
        return optima(surrogate, region, weights, np.array([region.starts(STARTS, rng) for rng in streams]))

    def _whole(self, rows: np.ndarray) -> np.ndarray:
        """Rows [M, J] of the coefficients of successful experts."""
        whole = np.zeros((len(rows), len(self.experts)))
        whole[:, self._good] = rows
        return whole
