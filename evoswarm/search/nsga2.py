"""NSGA-II with the operators of GENOME: a front of experts for several objectives.

Kalyanmoy Deb and others, 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 6:2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from evoswarm.search.config import Population
from evoswarm.search.dominance import by_crowding
from evoswarm.search.genetic import Genetic, GeneticSearch, GeneticState, InitialPopulation
from evoswarm.search.operators import mix
from evoswarm.search.pareto import Pareto, ParetoSearch, ParetoState, Vectored
from evoswarm.search.state import Measured, Steps
from evoswarm.section import NonNegative, Rate


class Nsga2(Pareto, Genetic):
    """A front over the tasks of multi_task by NSGA-II (Deb et al. 2002), with GENOME's crossover and mutation."""

    type: Literal["nsga2"] = "nsga2"
    population: Population = 20
    initial: InitialPopulation = "experts"
    cross_rate: Rate = 0.9
    """Probability of each of the N crossover trials (NSGA-II: 0.9)."""
    blend: NonNegative = 0.5
    """A child is w x1 + (1 - w) x2 with w ~ U(-blend, 1 + blend). 0: always between its parents. 0.5: BLX-0.5
    (Eshelman and Schaffer 1993)."""


@dataclass
class Nsga2State(ParetoState, GeneticState):
    """`members` with their objectives."""

    members: Vectored = field(default_factory=Vectored)


class Nsga2Search(ParetoSearch, GeneticSearch):
    """NSGA-II (Deb et al. 2002). Population, mutation and re-basing: see `GeneticSearch`. Front: see `ParetoSearch`.

    Crossover: N trials over the members, each with chance cross_rate: two parents by binary tournament (lower rank
    wins, then the larger crowding distance, then the lower index); child = w x1 + (1 - w) x2, w ~ U(-blend, 1 + blend).
    With fewer than two members there is no crossover.
    Draws: "crossover"(t, i) of trial i: random() < cross_rate, choice(M, 2, replace=False) per tournament, uniform.
    Utilities have no influence on parents or survivors.

    Selection: N of members and offspring, by rank, then by crowding distance within the last rank that enters. Failed
    offspring are dropped. If nothing is left, the global best is the only member.

    Assumption: rows keep the sum 1 without mutation. `elite_rate` has no effect: the selection is elitist.
    """

    config_class = Nsga2
    config: Nsga2
    state: Nsga2State
    state_class = Nsga2State

    def _begin(self, population: Measured) -> None:
        self._select(population)

    def _advance(self, t: int) -> Steps:
        born = yield self._breed(t)
        assert isinstance(born, Vectored)
        self._select(self.state.members.join(born))

    def _select(self, everyone: Measured) -> None:
        assert isinstance(everyone, Vectored)
        good = everyone.take(everyone.succeeded)
        survivors = by_crowding(good.vectors)[: self.config.population]
        self.state.members = good.take(survivors) if len(survivors) else self.state.best.take([0])

    def _trials(self, members: int) -> int:
        return self.config.population

    def _child(self, rng: np.random.Generator) -> np.ndarray:
        """Members are in the order of the selection, so the lower index wins a tournament."""
        rows = self.state.members.rows
        a, b = (int(rng.choice(len(rows), 2, replace=False).min()) for _ in range(2))
        return mix(rows[a], rows[b], rng.uniform(-self.config.blend, 1 + self.config.blend))
