"""CMA-ES over coefficients, of whole experts or of spans of their layers (EvolMerge)."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evoswarm.rows import BasisVector, LayersVector
from evoswarm.search.config import Evolution, Patience, Population
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch, SamplingState
from evoswarm.search.spans import LayerSpans, span_basis
from evoswarm.search.state import Measured, Steps, no_numbers
from evoswarm.section import Positive

if TYPE_CHECKING:
    from cmaes import CMA


class Covariance(Evolution):
    """The settings that CMA-ES and EvolMerge share.

    CMA-ES's own rule for the population, 4 + 3 ln n, gives 10 for ten experts.
    """

    population: Annotated[Population, Field(ge=4)] = 10
    patience: Patience = None
    sigma: Positive = 0.3
    """First standard deviation of a coefficient around the uniform mix, where the search starts."""
    affine: bool = True
    """Shift each sample so that its coefficients sum to 1 (in every span of layers). false: any sum, which also scales
    what the experts add to the base model."""

    package: ClassVar[str] = "cmaes"


class CmaEs(Covariance):
    """CMA-ES over coefficients (arXiv 1604.00772): it learns from the ranks of the samples which directions pay."""

    type: Literal["cma_es"] = "cma_es"
    layer_spans: LayerSpans = 1


class EvolMerge(Covariance):
    """CMA-ES over coefficients of each layer (evolutionary model merging, arXiv 2403.13187)."""

    type: Literal["evolmerge"] = "evolmerge"
    layer_spans: LayerSpans = None


@dataclass
class CmaEsState(SamplingState):
    """The distribution of the next generation over D searched coefficients.

    `covariance` is the library's packed form [D (D + 1) / 2], `path` and `path_sigma` the evolution paths [D].
    """

    mean: np.ndarray = field(default_factory=no_numbers)
    covariance: np.ndarray = field(default_factory=no_numbers)
    path: np.ndarray = field(default_factory=no_numbers)
    path_sigma: np.ndarray = field(default_factory=no_numbers)
    sigma: float = 0.0
    updates: int = 0


_NAMES = {
    "mean": "_mean",
    "covariance": "_c_1d",
    "path": "_pc",
    "path_sigma": "_p_sigma",
    "sigma": "_sigma",
    "updates": "_g",
}
"""Our names of the optimizer's state, and its names in `__getstate__` and `__setstate__`."""


class CmaEsSearch(SamplingSearch):
    """CMA-ES by the package `cmaes`, over the coefficients of the successful experts.

    With `layer_spans` S the layers are cut into S spans of equal length (some a layer longer if they do not divide
    evenly), and an expert has one coefficient in each: D = S times the successful experts.
    Generation t > 0: N samples of a normal distribution, which is then updated from their ranks. It starts around the
    uniform mix with standard deviation `sigma`. `affine` shifts a sample, in each span evenly over the experts, so that
    the span's coefficients sum to 1. A failed sample ranks last; if all failed, nothing is updated.
    Draws: "cma_es"(t, 0): integers(2**32), the seed of the optimizer's own stream in that generation.

    Every generation rebuilds the optimizer from the state, so resuming is no special case.
    Source: Hansen, The CMA evolution strategy: a tutorial (arXiv 1604.00772); with layer spans, parameter-space merging
    of arXiv 2403.13187, with coefficients in place of TIES-DARE densities.
    """

    config_class: type[Covariance] = CmaEs
    config: CmaEs | EvolMerge
    state: CmaEsState
    state_class = CmaEsState

    def _first_basis(self, layers: int | None) -> list[BasisVector]:
        spans = self.config.layer_spans
        if layers is None or spans == 1:
            return super()._first_basis(layers)
        return span_basis(self.experts, layers=layers, spans=spans)

    @property
    def _spans(self) -> int:
        return len(self.basis) // len(self.experts)

    def _expert_rows(self) -> np.ndarray:
        if self.config.layer_spans != 1 and not isinstance(self.basis[0], LayersVector):
            raise ValueError("a search over spans of layers needs the number of `layers`")
        return np.kron(np.eye(len(self.experts)), np.ones((1, self._spans)))

    def _begin(self, population: Measured) -> None:
        super()._begin(population)
        self._remember(self._optimizer(self._middle.reshape(-1, self._spans)[self._good].reshape(-1)))

    def _advance(self, t: int) -> Steps:
        optimizer = self._optimizer(self.state.mean)
        state = {theirs: copy(getattr(self.state, ours)) for ours, theirs in _NAMES.items()}
        optimizer.__setstate__(optimizer.__getstate__() | state)
        optimizer.reseed_rng(int(stream(self.seed, "cma_es", t).integers(2**32)))
        samples = [optimizer.ask() for _ in range(self.config.population)]
        fresh = yield self._ask_samples(t, np.array([self._row(sample) for sample in samples]))
        if fresh.succeeded.any():
            optimizer.tell([(x, -u) for x, u in zip(samples, fresh.utilities.tolist(), strict=True)])
            self._remember(optimizer)
        self._keep(fresh)

    def _optimizer(self, mean: np.ndarray) -> CMA:
        from cmaes import CMA

        return CMA(mean, self.config.sigma, population_size=self.config.population)

    def _remember(self, optimizer: CMA) -> None:
        state: dict[str, Any] = optimizer.__getstate__()
        for ours, theirs in _NAMES.items():
            setattr(self.state, ours, copy(state[theirs]))
        self.state.sigma, self.state.updates = float(self.state.sigma), int(self.state.updates)

    def _row(self, sample: np.ndarray) -> np.ndarray:
        """The row [J] of a sample [D]."""
        block = sample.reshape(-1, self._spans)
        if self.config.affine:
            block = block + (1 - block.sum(axis=0)) / len(block)
        row = np.zeros((len(self.experts), self._spans))
        row[self._good] = block
        return row.reshape(-1)


class EvolMergeSearch(CmaEsSearch):
    """CMA-ES over coefficients of every layer: `CmaEsSearch` under the name of the published baseline."""

    config_class = EvolMerge
