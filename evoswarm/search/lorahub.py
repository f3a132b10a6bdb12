"""LoraHub: nevergrad's NGOpt over coefficients, with an L1 penalty."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from evoswarm.errors import not_installed
from evoswarm.search.config import Evolution, MaxGenerations, Patience, Population
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch, SamplingState
from evoswarm.search.state import Measured, Steps, no_numbers
from evoswarm.section import NonNegative, Positive


class LoraHub(Evolution):
    """Gradient-free composition of adapters with NGOpt and an L1 penalty (LoraHub, arXiv 2307.13269).

    LoraHub asks for one sample at a time, 40 in all; here a generation is 10 samples, which a cluster can share. NGOpt
    plans for population * max_generations samples; a run that is resumed with more generations keeps its plan.
    """

    type: Literal["lorahub"] = "lorahub"
    population: Population = 10
    max_generations: MaxGenerations = 4
    patience: Patience = None
    bound: Positive = 1.5
    """Coefficients are in [-bound, bound] (LoraHub: 1.5)."""
    l1: NonNegative = 0.05
    """Penalty: this times the mean absolute coefficient is subtracted from the utility (LoraHub: 0.05)."""

    package: ClassVar[str] = "nevergrad"

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """The optimizer plans for the whole budget."""
        generations = max(1, (budget - experts) // self.population)
        return super().at_budget(budget, experts=experts) | {"max_generations": generations}


@dataclass
class LoraHubState(SamplingState):
    """`losses` [T]: all losses told to the optimizer, in order. `budget`: the number of samples that it plans for."""

    losses: np.ndarray = field(default_factory=no_numbers)
    budget: int = 0


class LoraHubSearch(SamplingSearch):
    """NGOpt of the package `nevergrad` over the coefficients of the successful experts, each in [-bound, bound].

    Generation t > 0: the optimizer's next N samples. Their loss is -utility + l1 mean |coefficient|. The optimizer
    starts around all zeros, the base model: coefficients need not sum to 1. A failed sample gets the largest loss so
    far, or 1 if there is none. The ranking uses the utility alone.
    Draws: "lorahub"(0, 0): integers(2**32), the seed of the optimizer's own stream.

    The only way to save the optimizer's state is a pickle. So a restored search creates it again and replays the same
    asks and losses.
    Source: LoraHub (arXiv 2307.13269), which asks for one sample at a time.
    """

    config_class = LoraHub
    config: LoraHub
    state: LoraHubState
    state_class = LoraHubState
    _optimizer: Any = None

    def _begin(self, population: Measured) -> None:
        super()._begin(population)
        self.state.budget = self.config.population * self.config.max_generations

    def _advance(self, t: int) -> Steps:
        optimizer, self._optimizer = self._ready(), None  # out of step with the state until told
        candidates = self._candidates_of(optimizer)
        rows = np.zeros((len(candidates), len(self.experts)))
        rows[:, self._good] = [candidate.value for candidate in candidates]
        fresh = yield self._ask_samples(t, rows)
        losses = self._losses(fresh)
        self.state.losses = np.concatenate([self.state.losses, losses])
        _tell(optimizer, candidates, losses)
        self._optimizer = optimizer
        self._keep(fresh)

    def _losses(self, fresh: Measured) -> np.ndarray:
        penalty = self.config.l1 * np.abs(fresh.rows[:, self._good]).mean(axis=1)
        losses = np.where(fresh.succeeded, -fresh.utilities, 0) + penalty
        known = np.concatenate([self.state.losses, losses[fresh.succeeded]])
        losses[~fresh.succeeded] = known.max() if len(known) else 1.0
        return losses

    def _ready(self) -> Any:
        """The optimizer after all losses of the state."""
        told, size = self.state.losses, self.config.population
        if self._optimizer is not None and self._optimizer.num_tell == len(told):
            return self._optimizer
        try:
            import nevergrad
        except ImportError:
            raise not_installed("search.type lorahub", "nevergrad", extra="compare") from None
        bound = self.config.bound
        first = self._middle[self._good].clip(-bound, bound) if len(self.state.start) else np.zeros(self._good.sum())
        parameters = nevergrad.p.Array(init=first, lower=-bound, upper=bound)
        parameters.random_state = np.random.RandomState(int(stream(self.seed, "lorahub").integers(2**32)))
        budget = max(self.state.budget, size)
        optimizer = nevergrad.optimizers.NGOpt(parameters, budget=budget, num_workers=size)
        for start in range(0, len(told), size):
            _tell(optimizer, self._candidates_of(optimizer), told[start : start + size])
        return optimizer

    def _candidates_of(self, optimizer: Any) -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [optimizer.ask() for _ in range(self.config.population)]


def _tell(optimizer: Any, candidates: Sequence[Any], losses: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for candidate, loss in zip(candidates, losses, strict=True):
            optimizer.tell(candidate, float(loss))
