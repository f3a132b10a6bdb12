"""The common part of searches for several objectives: the front of everything measured, and the row that wins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from evoswarm.search.base import Search
from evoswarm.search.config import Evolution
from evoswarm.search.dominance import hypervolume, nondominated, thinned, to_ideal
from evoswarm.search.front import Front
from evoswarm.search.state import FAILED, Ask, Best, Measured, Outcomes, State, no_numbers
from evoswarm.section import NonNegative

MOST_OBJECTIVES = 6
"""With more objectives nearly every row is on the front, and its hypervolume takes too long."""


class Pareto(Evolution):
    """The settings that searches for several objectives share. The objectives are the tasks of a multi_task utility."""

    patience: Annotated[
        int | None,
        Field(
            ge=1,
            description="Stop when the hypervolume of the front has not risen for this many generations; null: never "
            "stop early.",
        ),
    ] = 10
    choose: Literal["knee", "utility"] = "knee"
    """Which row of the front is the winner in best/. knee: the row nearest to the highest value of each task, with
    tasks scaled to the front's range. utility: the row with the highest utility.combine of its tasks."""
    weights: dict[str, NonNegative] | None = None
    """The winner is the row with the highest weighted sum of its tasks, in place of `choose`. Every task has a weight;
    they are normalized to sum 1."""
    reference: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    """Reference point of the hypervolume, a number for every task. null: 0, or the value of the worst initial expert if
    that is negative."""
    front_size: int = Field(20, ge=1)
    """At the end, this many rows, spread over the front, are measured on the test split and written to front/."""
    ensemble_size: int = Field(1, ge=1)
    """Only 1: rows of a front are different trade-offs, so they do not vote."""

    several: ClassVar[bool] = True
    outcomes: ClassVar[bool] = True
    progress: ClassVar[str] = "the hypervolume of the front"

    @property
    def finalists(self) -> int:
        """Rows of the front."""
        return self.front_size

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """A comparison is by the utility, and measures the winner alone. Small generations fill the budget better."""
        more = {"population": 10, "choose": "utility", "front_size": 1}
        return super().at_budget(budget, experts=experts) | more

    @field_validator("ensemble_size")
    @classmethod
    def _no_votes(cls, value: int) -> int:
        if value != 1:
            raise ValueError(
                "rows of a front are different trade-offs and do not vote; leave it out, or set front_size"
            )
        return value

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and sum(value.values()) == 0:
            raise ValueError("weights are all zero; give at least one task a positive weight")
        return value


def no_objectives() -> np.ndarray:
    """No row and no objective."""
    return np.zeros((0, 0, 1))


@dataclass
class Vectored(Measured):
    """Measured rows with `objectives` [M, K, 1]: three dimensions, because every 2-D array of a state holds rows."""

    objectives: np.ndarray = field(default_factory=no_objectives)

    @property
    def vectors(self) -> np.ndarray:
        """The objectives [M, K]."""
        return np.asarray(self.objectives[:, :, 0])


@dataclass
class ParetoState(State):
    """`front`: see `Front`. `improved`: the last generation in which its `hypervolume` rose."""

    best: Vectored = field(default_factory=Vectored)
    worst: Vectored = field(default_factory=Vectored)
    front: Vectored = field(default_factory=Vectored)
    reference: np.ndarray = field(default_factory=no_numbers)
    tasks: list[str] = field(default_factory=list)
    hypervolume: float = 0.0
    improved: int = 0


class ParetoSearch(Search):
    """A search for several objectives. It keeps the front of all rows measured so far, and stops by its hypervolume.

    The global best is the row of the front that `choose` or `weights` name (ties: the higher utility, then the earlier
    row), so its utility may fall. The global worst is the row with the lowest utility. A row with an objective that is
    no finite number counts as failed.
    """

    config: Pareto
    state: ParetoState
    state_class: type[ParetoState] = ParetoState

    def _measured(self, ask: Ask, utilities: np.ndarray, outcomes: Outcomes) -> Vectored:
        told = outcomes.objectives
        if not outcomes.tasks:  # no row, or none that succeeded
            told = np.full((len(utilities), len(self.state.tasks)), np.nan)
        sound = (utilities != FAILED) & np.isfinite(told).all(axis=1)
        vectors = np.where(sound[:, None], told, FAILED)
        plain = super()._measured(ask, np.where(sound, utilities, FAILED), outcomes)
        return Vectored(plain.rows, plain.utilities, plain.generations, plain.particles, vectors[:, :, None])

    def _learn(self, fresh: Measured, outcomes: Outcomes) -> None:
        assert isinstance(fresh, Vectored)
        state, good = self.state, fresh.take(fresh.succeeded)
        if not len(good):
            return
        if not state.tasks:
            state.tasks, state.reference = list(outcomes.tasks), self._reference(outcomes.tasks, good.vectors)
        known = state.front.join(good) if len(state.front) else good
        state.front = known.take(nondominated(known.vectors))
        volume = hypervolume(state.front.vectors, state.reference)
        if volume > state.hypervolume:
            state.hypervolume, state.improved = volume, int(good.generations[0])
        state.best = state.front.take([self._chosen()])

    def _reference(self, tasks: tuple[str, ...], experts: np.ndarray) -> np.ndarray:
        given = self.config.reference
        return np.minimum(0.0, experts.min(axis=0)) if given is None else np.array([given[task] for task in tasks])

    def _chosen(self) -> int:
        """The row of the front that wins."""
        front, weights = self.state.front, self.config.weights
        if weights is not None:
            scores = front.vectors @ np.array([weights[task] for task in self.state.tasks])
        else:
            scores = -to_ideal(front.vectors) if self.config.choose == "knee" else front.utilities
        return int(np.lexsort((np.arange(len(front)), -front.utilities, -scores))[0])

    @property
    def front(self) -> Front | None:
        state = self.state
        if not len(state.front):
            return None
        rows = tuple(state.front.entries())
        return Front(tuple(state.tasks), rows, state.front.vectors, state.reference, state.hypervolume)

    @property
    def _last_gain(self) -> int:
        return self.state.improved

    def ranking(self, k: int) -> list[Best]:
        """The global best, then others, oldest first: at most k rows that are spread over the front."""
        if not len(self.state.front):
            return []
        chosen = self._chosen()
        index = thinned(self.state.front.vectors, k, keep=chosen)
        return list(self.state.front.take([chosen, *index[index != chosen]]).entries())
