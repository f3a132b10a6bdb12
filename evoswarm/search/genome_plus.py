"""GENOME+: GENOME with succession, a growing population, roulette selection and an ensemble.

Yiqun Zhang and others, 2025, "Nature-Inspired Population-Based Evolution of Large Language Models", arXiv 2503.01155.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from evoswarm.search.config import Cognitive, MaxGenerations, Pulls, Repel, Social, StepLength
from evoswarm.search.genetic import (
    GeneRate,
    Genetic,
    GeneticSearch,
    GeneticState,
    InitialPopulation,
    MutationRate,
    Sigma,
)
from evoswarm.search.operators import elite_count, improve, select_by_roulette, top
from evoswarm.search.rng import stream
from evoswarm.search.state import Measured, Steps
from evoswarm.search.swarm import SwarmState, move


class GenomePlus(Pulls, Genetic):
    """GENOME with succession, a growing population, roulette selection and an ensemble (arXiv 2503.01155).

    Defaults are those of GENOME+'s command line. Succession moves members as Model Swarms does.
    """

    type: Literal["genome_plus"] = "genome_plus"
    max_population: int = Field(20, ge=2, le=1000)
    """The population may grow to this many."""
    max_generations: MaxGenerations = 20
    initial: InitialPopulation = "experts"
    mutation_rate: MutationRate = 0.3
    gene_rate: GeneRate = 0.1
    sigma: Sigma = 0.05
    cognitive: Cognitive = 0.2
    social: Social = 0.2
    repel: Repel = 0.1
    step_length: StepLength = 0.5

    @property
    def most_particles(self) -> int:
        """The population grows."""
        return self.max_population

    @model_validator(mode="after")
    def _population_fits(self) -> GenomePlus:
        if self.max_population < self.population:
            raise ValueError(f"max_population ({self.max_population}) is below population ({self.population})")
        return self


@dataclass
class GenomePlusState(SwarmState, GeneticState):
    """Line i of velocities and bests belongs to member i."""


class GenomePlusSearch(GeneticSearch):
    """GENOME+ (arXiv 2503.01155). Population, crossover and mutation: see `GeneticSearch`. First velocities are 0.

    Generation t, of M members with positions x, velocities v, personal bests p:

    1. Succession: all members move at once, see `swarm.move`; then step <- factor step. All moved rows are measured
       (particle = member index); p improves on strict >. The ceil(elite_rate M) best members before the move (best
       first) join unmoved with the utility they had, so that no move loses an elite.
    2. Crossover and mutation over all these; the offspring are measured.
    3. Selection down to max_population: the ceil(elite_rate max_population) best, then others by roulette on utility
       without replacement. If at most max_population succeeded, all of them stay in their order and nothing is drawn.
       Draws: "selection"(t, 0): choice(number of non-elites, places, replace=False, p = roulette weights).

    New members start with velocity 0 and themselves as personal best. Selection drops failed members with their
    personal bests; if none is left, the global best is the only member. The ranking is made of personal bests.
    """

    config_class = GenomePlus
    config: GenomePlus
    state: GenomePlusState
    state_class = GenomePlusState

    @property
    def step_length(self) -> float:
        return self.state.step_length

    def _begin(self, population: Measured) -> None:
        self._reset(population)
        self.state.step_length = self.config.step_length

    def _reset(self, members: Measured) -> None:
        self.state.members, self.state.bests = members, members.take(slice(None))
        self.state.velocities = np.zeros_like(members.rows)

    def _advance(self, t: int) -> Steps:
        before, config = self.state.members, self.config
        elites = before.take(top(before.utilities, elite_count(config.elite_rate, len(before))))
        rows = move(self.state, before.rows, pulls=config, seed=self.seed, generation=t)
        self.state.step_length *= config.step_length_factor
        self.state.members = yield self._ask(t, "succession", range(len(rows)), rows)
        improve(self.state.bests, np.arange(len(rows)), self.state.members)
        self._join(elites)
        self._join((yield self._breed(t)))
        self._select(t)

    def most_rows(self, t: int) -> int:
        """All members move; then they and the unmoved elites have offspring."""
        members = len(self.state.members)
        elites = elite_count(self.config.elite_rate, members)
        return members + self._most_offspring(t, members + elites)

    def _join(self, fresh: Measured) -> None:
        state = self.state
        state.members, state.bests = state.members.join(fresh), state.bests.join(fresh)
        state.velocities = np.concatenate([state.velocities, np.zeros_like(fresh.rows)])

    def _select(self, t: int) -> None:
        state, places = self.state, self.config.max_population
        keep = select_by_roulette(
            stream(self.seed, "selection", t),
            state.members.utilities,
            places=places,
            elites=elite_count(self.config.elite_rate, places),
        )
        if not len(keep):
            self._reset(state.best.take([0]))
            return
        state.members, state.bests = state.members.take(keep), state.bests.take(keep)
        state.velocities = state.velocities[keep]

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.members, self.state.bests
