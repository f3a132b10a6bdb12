"""Searches without generations' barrier: a particle goes on as soon as its own utility is known.

The asynchronous particle swarm is that of Koh and others, 2006, "Parallel asynchronous particle swarm optimization";
the steady-state genetic algorithm that of Syswerda, 1989, "Uniform crossover in genetic algorithms". The moves are
those of Model Swarms and GENOME.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evoswarm.config.search import ModelSwarms
from evoswarm.rows import NoiseVector
from evoswarm.search.base import Ask, Search, Steps
from evoswarm.search.genetic import GeneticState
from evoswarm.search.genome import GenomeSearch
from evoswarm.search.model_swarms import ModelSwarmsSearch, SwarmState
from evoswarm.search.operators import (
    cross,
    elite_count,
    improve,
    pull,
    roulette,
    roulette_weights,
    select_by_tournament,
)
from evoswarm.search.rng import stream
from evoswarm.search.state import FAILED, Measured, State, no_integers, no_rows


@dataclass
class Flight(State):
    """What is under way: one row for each of the N slots; how many rows each slot has had after generation 0; whose
    turn it was when its row began."""

    flight: np.ndarray = field(default_factory=no_rows)
    steps: np.ndarray = field(default_factory=no_integers)
    turns: np.ndarray = field(default_factory=no_integers)
    told: int = 0
    """Utilities of the present generation that are known."""


class SteadySearch(Search):
    """Generation 0 is asked and told as ever; from then on N rows are under way at any time.

    `take_in` tells one utility, in whatever order they come, and gives the row that follows in its slot. N utilities
    make a generation, which is where the state can be saved: N rows are under way then too. What a search does is a
    function of the seed and of the order in which the slots are told, so whoever repeats the order repeats the search.

    Example:
        ask = search.flight()
        while search.stop_reason is None:
            slot = whoever_is_done_first()
            ask = search.take_in(slot, utility)      # the next row of this slot
    """

    state: Flight

    @abstractmethod
    def _settle(self, slot: int, fresh: Measured) -> None:
        """Take in what a slot's row [1, J] came to."""

    @abstractmethod
    def _launch(self, slot: int) -> None:
        """Put the slot's next row under way."""

    def _no_better(self, slots: Sequence[int]) -> np.ndarray | None:
        """See `Ask.enough`."""
        return None

    @property
    def finished_generation(self) -> bool:
        return super().finished_generation and self.state.told == 0

    def _advance(self, t: int) -> Steps:
        raise ValueError("a steady search is told by take_in after generation 0")

    def _begin(self, population: Measured) -> None:
        super()._begin(population)  # type: ignore[safe-super]
        self.state.flight = np.zeros((self.config.population, population.rows.shape[1]))
        self.state.steps = np.zeros(self.config.population, dtype=np.int64)
        self.state.turns = np.arange(self.config.population, dtype=np.int64)
        for slot in range(self.config.population):
            self._launch(slot)

    def flight(self) -> Ask:
        """Everything that is under way, the oldest first; `particles` are the slots."""
        return self.under_way([int(slot) for slot in np.argsort(self.state.turns)])

    def take_in(self, slot: int, utility: float | None) -> Ask:
        """What the row under way in a slot came to, None where it failed; returns the slot's next row.

        Raises:
            ValueError: generation 0 is not finished, there is no such slot, or the utility is NaN or infinite.
        """
        state = self.state
        if self.generation < 0 or not 0 <= slot < len(state.flight):
            raise ValueError(f"nothing is under way in slot {slot}")
        if utility is not None and not np.isfinite(utility):
            raise ValueError("a utility is NaN or infinite; tell None for an evaluation that failed")
        value = np.array([FAILED if utility is None else float(utility)])
        fresh = Measured.of(state.flight[[slot]], value, generation=self.generation + 1, particles=[state.told])
        state.observe(fresh)
        state.evaluations += 1
        self._settle(slot, fresh)
        state.told += 1
        if state.told == self.config.population:
            self.generation, state.told = self.generation + 1, 0
        self._launch(slot)
        state.turns[slot] = state.turns.max() + 1
        return self.under_way([slot])

    def under_way(self, slots: Sequence[int]) -> Ask:
        """What is under way in some slots."""
        rows = self.state.flight[list(slots)].copy()
        return self._ask(self.generation + 1, "steady", slots, rows, no_better=self._no_better(slots))


@dataclass
class SteadySwarmState(Flight, SwarmState):
    """`particles` are where each particle was measured last; `clocks` count its own moves."""


class SteadyModelSwarms(SteadySearch, ModelSwarmsSearch):
    """Model Swarms without barrier: a particle moves when its own utility is known, with the global best and worst of
    that moment.

    Its k-th move draws what `ModelSwarmsSearch` draws for generation k, and its step length is the first one times
    factor^(k - 1), at least min_step. Restart counts its own moves. A dropped move (chance 1 - (1 - dropK) (1 - dropN))
    is followed by the next at once.
    Draws: "drop_particle"(k, i): random().
    """

    config: ModelSwarms
    state: SteadySwarmState
    state_class = SteadySwarmState

    @property
    def step_length(self) -> float:
        """Of the next move of a particle that has moved once a generation."""
        return self._length(max(0, self.generation) + 1)

    def _length(self, k: int) -> float:
        config = self.config
        if k == 1:
            return config.step_length
        return max(config.step_length * config.step_length_factor ** (k - 1), config.min_step_length)

    def _no_better(self, slots: Sequence[int]) -> np.ndarray:
        chosen: np.ndarray = self.state.bests.utilities[list(slots)]
        return chosen

    def _settle(self, slot: int, fresh: Measured) -> None:
        self.state.particles.put(np.array([slot]), fresh)
        if len(improve(self.state.bests, np.array([slot]), fresh)):
            self.state.clocks[slot] = self.state.steps[slot]

    def _launch(self, slot: int) -> None:
        state, i = self.state, slice(slot, slot + 1)
        x, dropped = state.particles.rows[i], True
        while dropped:
            x = self._restarted(slot, x)
            state.steps[slot] += 1
            k = int(state.steps[slot])
            state.velocities[i] = self._pulled(x, slot, k)
            x = x + self._length(k) * state.velocities[i]
            chance = 1 - (1 - self.config.drop_generations) * (1 - self.config.drop_particles)
            dropped = stream(self.seed, "drop_particle", k, slot).random() < chance
        state.flight[i] = x

    def _restarted(self, slot: int, x: np.ndarray) -> np.ndarray:
        state, config = self.state, self.config
        if config.patience is None or config.restart_patience is None or not state.bests.succeeded[slot]:
            return x
        if state.steps[slot] - state.clocks[slot] < max(1.0, config.restart_patience * config.patience):
            return x
        state.velocities[slot] = 0
        state.clocks[slot] = state.steps[slot]
        return state.bests.rows[slot : slot + 1]

    def _pulled(self, x: np.ndarray, slot: int, k: int) -> np.ndarray:
        state, config, i = self.state, self.config, slice(slot, slot + 1)
        random = stream(self.seed, "move", k, slot).random(4) if config.weight_randomness else np.ones(4)
        return pull(
            x,
            v=state.velocities[i],
            p=state.bests.rows[i],
            g=state.best.rows[0],
            w=state.worst.rows[0],
            has_best=state.bests.succeeded[i],
            weights=(random * [config.inertia, config.cognitive, config.social, config.repel])[None],
        )


@dataclass
class SteadyGeneticState(Flight, GeneticState):
    """`members`: the population, in the order that selection left."""


class SteadyGenome(SteadySearch, GenomeSearch):
    """GENOME without barrier: who is measured joins the members, one of N + 1 leaves by GENOME's selection, and a new
    offspring takes its slot.

    The k-th offspring of slot i: with chance cross_rate, and where two members are sound, the child of two parents by
    roulette, else a copy of one parent by roulette, which is always mutated; a child is mutated with chance
    mutation_rate.
    Draws: "breed"(k, i): random() < cross_rate, choice of the parents, random() < mutation_rate; "selection"(t, m) of
    the m-th utility of generation t.
    """

    state: SteadyGeneticState
    state_class = SteadyGeneticState

    def _begin(self, population: Measured) -> None:
        super()._begin(population if population.succeeded.any() else self.state.best.take([0]))

    def _settle(self, slot: int, fresh: Measured) -> None:
        state, places = self.state, self.config.population
        everyone = state.members.join(fresh)
        survivors = select_by_tournament(
            stream(self.seed, "selection", self.generation + 1, state.told),
            everyone.utilities,
            places=places,
            elites=elite_count(self.config.elite_rate, places),
            size=self.config.tournament,
        )
        state.members = everyone.take(survivors) if len(survivors) else state.best.take([0])

    def _launch(self, slot: int) -> None:
        state = self.state
        state.steps[slot] += 1
        k = int(state.steps[slot])
        rng = stream(self.seed, "breed", k, slot)
        members = state.members
        good, weights = members.succeeded, roulette_weights(members.utilities)
        crosses = rng.random() < self.config.cross_rate and good.sum() >= 2
        parents = roulette(rng, weights, good, 2 if crosses else 1)
        row = members.rows[parents[0]]
        if crosses:
            a, b = parents
            row = cross(members.rows[a], members.rows[b], weights[a], weights[b])
        if rng.random() < self.config.mutation_rate or not crosses:
            rates = {"gene_rate": self.config.gene_rate, "sigma": self.config.sigma}
            self._extend([NoiseVector(seed=self.seed, generation=k, particle=slot, **rates)])
            row = np.append(row, 1.0)
        state.flight[slot] = row
