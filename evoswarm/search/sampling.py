"""The common part of searches that draw samples: generation 0 is the experts, and an archive keeps the best rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from evoswarm.search.base import Search
from evoswarm.search.operators import distinct_top
from evoswarm.search.state import FAILED, Ask, Measured, State


@dataclass
class SamplingState(State):
    """`samples`: the last generation; `archive`: the best distinct rows so far."""

    samples: Measured = field(default_factory=Measured)
    archive: Measured = field(default_factory=Measured)


class SamplingSearch(Search):
    """A search whose every generation t > 0 is one ask of N rows, phase "sample".

    Generation 0: the successful experts. A failed expert has coefficient 0 from then on.
    The ranking keeps the best max(ensemble_size, N) distinct rows, experts included.
    """

    state: SamplingState
    state_class: type[SamplingState] = SamplingState

    @property
    def _good(self) -> np.ndarray:
        """Mask [n] of the experts that were measured."""
        return self.state.expert_utilities != FAILED

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        return np.flatnonzero(experts.succeeded), np.zeros((0, len(self.basis)))

    def _with_start(self, index: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return index, np.concatenate([rows, self.state.start])

    @property
    def _middle(self) -> np.ndarray:
        """Where samples are drawn around [J]: the start row, or the uniform mix of the successful experts."""
        if len(self.state.start):
            return np.asarray(self.state.start[0])
        return np.asarray(self._good / self._good.sum() @ self._expert_rows())

    def _begin(self, population: Measured) -> None:
        self._keep(population)

    def _ask_samples(self, t: int, rows: np.ndarray) -> Ask:
        return self._ask(t, "sample", range(len(rows)), rows)

    def _keep(self, fresh: Measured) -> None:
        state = self.state
        state.samples = fresh
        known = state.archive.join(fresh) if len(state.archive) else fresh
        state.archive = distinct_top(known, max(self.config.ensemble_size, self.config.population))

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.samples, self.state.samples

    def _candidates(self) -> Measured:
        return self.state.archive
