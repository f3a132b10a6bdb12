"""GENOME and GENOME+ on dicts of fp32 tensors; the rest of the naive reference is in `naive_reference`.

Source: GENOME and GENOME+ (arXiv 2503.01155).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from naive_reference import Particle, Reference, Run, Weights, weighted

from evoswarm.rows import NoiseVector
from evoswarm.search.genome import Genome
from evoswarm.search.genome_plus import GenomePlus
from evoswarm.search.rng import stream


def roulette(utilities: Sequence[float]) -> list[float]:
    """The roulette weights f: utilities, shifted by their minimum where one is negative; all zero means all equal."""
    lowest = min(utilities)
    weights = [utility - lowest if lowest < 0 else utility for utility in utilities]
    return weights if any(weights) else [1.0] * len(weights)


def spin(rng: np.random.Generator, weights: Sequence[float], count: int) -> list[int]:
    """`count` distinct places by roulette; places of weight 0 only fill up what the others leave, evenly."""
    positive = [place for place, weight in enumerate(weights) if weight > 0]
    if len(positive) >= count:
        chances = np.array(weights) / sum(weights)
        return [int(place) for place in rng.choice(len(weights), count, replace=False, p=chances)]
    zero = [place for place, weight in enumerate(weights) if weight == 0]
    return positive + [int(place) for place in rng.choice(zero, count - len(positive), replace=False)]


def successful(members: Sequence[Particle]) -> list[Particle]:
    return [member for member in members if member.utility is not None]


def utility_of(member: Particle) -> float:
    assert member.utility is not None
    return member.utility


class GeneticReference(Reference):
    """What GENOME and GENOME+ share: mixes, crossover, mutation."""

    config: Genome | GenomePlus

    def populate(self) -> Run:
        good = yield from self.evaluate_experts()
        if self.config.initial == "experts":
            self.start_from_experts(good)
        pairs = list(combinations(good, 2))
        order = stream(self.seed, "pairs", 0, 0).permutation(len(pairs))
        mixes: list[Particle] = []
        for i in range(len(self.members), self.config.population):
            a = float(stream(self.seed, "mix", 0, i).random())
            first, second = pairs[order[len(mixes) % len(pairs)]]
            mixes.append(Particle(weighted((a, self.experts[first]), (1 - a, self.experts[second]))))
        self.members += mixes
        utilities = yield "population", [mix.x for mix in mixes]
        self.scored(mixes, utilities, 0)

    def offspring(self, t: int) -> Run:
        children = self.crossover(t)
        mutants = self.mutation(t, self.members + children)
        utilities = yield "offspring", [particle.x for particle in children + mutants]
        self.scored(children + mutants, utilities, t)
        self.members = self.members + children + mutants

    def crossover(self, t: int) -> list[Particle]:
        parents = successful(self.members)
        if len(parents) < 2:
            return []
        weights = roulette([utility_of(member) for member in parents])
        children = []
        for trial in range(len(self.members) // 2):
            rng = stream(self.seed, "crossover", t, trial)
            if rng.random() < self.config.cross_rate:
                a, b = spin(rng, weights, 2)
                children.append(self.child(parents[a], parents[b], weights[a], weights[b]))
        return children

    def child(self, first: Particle, second: Particle, f1: float, f2: float) -> Particle:
        """(f1 x1 + f2 x2) / (f1 + f2); the midpoint where a parent weighs nothing."""
        if f1 == 0 or f2 == 0:
            f1 = f2 = 1.0
        return Particle(weighted((f1 / (f1 + f2), first.x), (f2 / (f1 + f2), second.x)))

    def mutation(self, t: int, particles: Sequence[Particle]) -> list[Particle]:
        """Children are mutated before they are evaluated; members whose evaluation failed are not mutated."""
        mutants = []
        for i, particle in enumerate(particles):
            failed = i < len(self.members) and particle.utility is None
            if stream(self.seed, "mutation", t, i).random() < self.config.mutation_rate and not failed:
                vector = NoiseVector(self.seed, t, i, self.config.gene_rate, self.config.sigma)
                mutants.append(Particle(weighted((1, particle.x), (1, self.noise(vector)))))
        return mutants

    def elites(self, members: Sequence[Particle], size: int) -> list[Particle]:
        best_first = sorted(successful(members), key=lambda member: -utility_of(member))
        return best_first[: math.ceil(self.config.elite_rate * size)]

    def selection(self, t: int, places: int) -> list[Particle]:
        """Elites first, then the chosen as they are chosen; where all fit, all in their order; never nobody."""
        members = successful(self.members)
        if not members:
            assert self.best is not None
            return [self.newcomer(self.best.weights, self.best.utility, self.best.generation)]
        if len(members) <= places:
            return members
        kept = self.elites(members, places)
        rest = [member for member in members if not any(member is elite for elite in kept)]
        return kept + self.chosen(stream(self.seed, "selection", t, 0), rest, places - len(kept))

    @abstractmethod
    def chosen(self, rng: np.random.Generator, rest: list[Particle], places: int) -> list[Particle]:
        """The survivors that are not elites."""

    def newcomer(self, x: Weights, utility: float, measured: int) -> Particle:
        particle = Particle(x)
        particle.scored(utility, measured)
        return particle


class GenomeReference(GeneticReference):
    """GENOME: crossover, mutation, evaluation, tournament selection."""

    config: Genome

    def run(self) -> Run:
        yield from self.populate()
        while True:
            self.generation += 1
            yield None
            yield from self.offspring(self.generation + 1)
            self.members = self.selection(self.generation + 1, self.config.population)

    def chosen(self, rng: np.random.Generator, rest: list[Particle], places: int) -> list[Particle]:
        winners: list[Particle] = []
        while len(winners) < places:
            entrants = rng.choice(len(rest), min(self.config.tournament, len(rest)), replace=False)
            winner = min(entrants, key=lambda entrant: (-utility_of(rest[entrant]), entrant))
            winners.append(rest.pop(winner))
        return winners


class GenomePlusReference(GeneticReference):
    """GENOME+: succession, crossover, mutation, evaluation, roulette selection."""

    config: GenomePlus

    def run(self) -> Run:
        yield from self.populate()
        step = self.config.step_length
        while True:
            self.generation += 1
            yield None
            yield from self.succession(self.generation + 1, step)
            yield from self.offspring(self.generation + 1)
            self.members = self.selection(self.generation + 1, self.config.max_population)
            step = self.config.step_length_factor * step

    def succession(self, t: int, step: float) -> Run:
        best, worst = self.best, self.worst
        assert best is not None and worst is not None
        elites = self.elites(self.members, len(self.members))
        kept = [self.newcomer(elite.x, utility_of(elite), elite.measured) for elite in elites]
        for i, member in enumerate(self.members):
            draws = [float(value) for value in stream(self.seed, "move", t, i).random(4)]
            self.move(member, best, worst, draws, step=step)
        utilities = yield "succession", [member.x for member in self.members]
        self.scored(self.members, utilities, t)
        self.members = self.members + kept

    def chosen(self, rng: np.random.Generator, rest: list[Particle], places: int) -> list[Particle]:
        weights = roulette([utility_of(member) for member in rest])
        return [rest[place] for place in spin(rng, weights, places)]
