"""GENOME: a genetic algorithm over experts.

Yiqun Zhang and others, 2025, "Nature-Inspired Population-Based Evolution of Large Language Models", arXiv 2503.01155.
In the papers' words a particle is an "individual" of the population.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evoswarm.search.genetic import Genetic, GeneticSearch
from evoswarm.search.operators import elite_count, select_by_tournament
from evoswarm.search.rng import stream
from evoswarm.search.state import Measured, Steps


class Genome(Genetic):
    """Crossover, mutation and tournament selection (GENOME, arXiv 2503.01155)."""

    type: Literal["genome"] = "genome"
    tournament: int = Field(3, ge=1)
    """Size of a selection tournament (GENOME code: 3)."""


class GenomeSearch(GeneticSearch):
    """GENOME (arXiv 2503.01155). Population, crossover and mutation: see `GeneticSearch`.

    Generation t: crossover and mutation; measure the offspring; select N of members and offspring: the
    ceil(elite_rate N) best, then winners of tournaments without replacement (losers may enter again). The order of the
    survivors (elites best first, then winners as they won) numbers the members of the next generation. If at most N
    succeeded, all of them stay in their order and nothing is drawn.
    Draws: "selection"(t, 0): per tournament choice(number left, min(tournament, number left), replace=False).

    Selection drops failed members and offspring, so the population may shrink; if none is left, the global best is the
    only member. Utilities may be negative, zero or equal. Without mutation all rows keep the sum 1.
    """

    config_class = Genome
    config: Genome

    def _begin(self, population: Measured) -> None:
        self.state.members = population

    def _advance(self, t: int) -> Steps:
        born = yield self._breed(t)
        everyone, places = self.state.members.join(born), self.config.population
        survivors = select_by_tournament(
            stream(self.seed, "selection", t),
            everyone.utilities,
            places=places,
            elites=elite_count(self.config.elite_rate, places),
            size=self.config.tournament,
        )
        self.state.members = everyone.take(survivors) if len(survivors) else self.state.best.take([0])
