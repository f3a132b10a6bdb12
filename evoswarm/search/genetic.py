"""The common part of GENOME and GENOME+: first population, crossover, mutation, and re-basing of the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from evoswarm.rows import NoiseVector, SavedVector
from evoswarm.search.base import Search
from evoswarm.search.config import Evolution, Patience, Population
from evoswarm.search.operators import cross, first_experts, mix, roulette, roulette_weights
from evoswarm.search.rebase import noise_parts, plan, replace
from evoswarm.search.rng import stream
from evoswarm.search.state import Ask, Measured, State, map_rows
from evoswarm.section import NonNegative, Rate

InitialPopulation = Annotated[
    Literal["mixes", "experts"],
    Field(
        description="First population. mixes: random mixes of expert pairs. experts: the experts, filled up with mixes."
    ),
]
MutationRate = Annotated[Rate, Field(description="Probability that a member adds one mutant.")]
GeneRate = Annotated[Rate, Field(description="Share of scalars that a mutation changes.")]
Sigma = Annotated[NonNegative, Field(description="Standard deviation of a mutation's noise.")]


class Genetic(Evolution):
    """The settings that GENOME and GENOME+ share. Defaults are those of GENOME's command line and code."""

    population: Population = 10
    patience: Patience = None
    initial: InitialPopulation = "mixes"
    cross_rate: Rate = 0.8
    """Probability of each of the N/2 crossover trials."""
    mutation_rate: MutationRate = 0.15
    gene_rate: GeneRate = 0.01
    sigma: Sigma = 0.01
    elite_rate: Rate = 0.1
    """Share of the population that selection always keeps; at least one particle unless 0."""
    max_noise_vectors: int = Field(64, ge=1)
    """With more noise vectors than this in use, they are summed up, saved, and become new basis vectors
    (re-basing)."""

    published: ClassVar[Mapping[str, Sequence[float]]] = {
        "mutation_rate": [0.15, 0.3],
        "gene_rate": [0.01, 0.1],
        "sigma": [0.001, 0.01, 0.05],
    }


@dataclass
class GeneticState(State):
    """`members`: the current population with its utilities, in the order of selection."""

    members: Measured = field(default_factory=Measured)


class GeneticSearch(Search):
    """Operators of GENOME (arXiv 2503.01155) over the members of a population.

    Population: "mixes": N mixes a x1 + (1 - a) x2 of pairs of successful experts; "experts": the successful experts
    (if N < n the best N, best first), filled up with such mixes. All pairs are shuffled once and used in that order,
    again from the start if there are fewer pairs than mixes.
    Draws: "pairs"(0, 0): permutation of the pairs (0, 1), (0, 2) .. (1, 2) ..; "mix"(0, i) of member i: a = random().

    Crossover: floor(M / 2) trials over M members, each with chance cross_rate: two distinct parents by roulette on
    utility; child = (f1 x1 + f2 x2) / (f1 + f2), f the roulette weights: the utilities, minus the smallest if one is
    negative; all equal if all are 0. If one of the two weights is 0, the child is the midpoint. Failed members are no
    parents; with fewer than two others there is no crossover.
    Draws: "crossover"(t, i) of trial i: random() < cross_rate, choice(M, 2, replace=False, p = weights / their sum).

    Mutation: each member that did not fail, and each child, adds the mutant x + e with chance mutation_rate; e is a new
    basis vector of seeded noise. Draws: "mutation"(t, i): random() < mutation_rate; i counts members, then children.

    Offspring are asked as children, then mutants; their particle ids continue those of the members (M, M + 1, ...).
    """

    config: Genetic
    state: GeneticState
    state_class: type[GeneticState] = GeneticState

    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        places = self.config.population if self.config.initial == "experts" else 0
        index = first_experts(experts.utilities, places)
        good = experts.rows[experts.succeeded]
        first, second = np.triu_indices(len(good), k=1)
        order = stream(self.seed, "pairs").permutation(len(first))
        mixes = []
        for k, i in enumerate(range(len(index), self.config.population)):
            pair = order[k % len(order)]
            mixes.append(mix(good[first[pair]], good[second[pair]], stream(self.seed, "mix", 0, i).random()))
        return index, np.reshape(mixes, (len(mixes), len(self.basis)))

    def _breed(self, t: int) -> Ask:
        """Crossover, then mutation: the ask for all offspring. The basis grows by one vector per mutant."""
        members = self.state.members
        children = self._children(t)
        parents = np.concatenate([members.rows, children])
        sound = np.concatenate([members.succeeded, np.ones(len(children), dtype=bool)])
        mutated = [int(i) for i in np.flatnonzero(sound) if self._mutates(t, int(i))]
        rates = {"gene_rate": self.config.gene_rate, "sigma": self.config.sigma}
        noise = [NoiseVector(seed=self.seed, generation=t, particle=i, **rates) for i in mutated]
        self.basis = [*self.basis, *noise]
        map_rows(self.state, lambda rows: np.pad(rows, ((0, 0), (0, len(noise)))))
        offspring = np.concatenate([children, parents[mutated]])
        rows = np.pad(offspring, ((0, 0), (0, len(mutated))))
        rows[len(children) :, parents.shape[1] :] = np.eye(len(mutated))
        return self._ask(t, "offspring", range(len(members), len(members) + len(rows)), rows)

    def _most_offspring(self, t: int, members: int) -> int:
        """Number of offspring of `members` members in generation t if none of them fails."""
        crossed = [stream(self.seed, "crossover", t, i).random() for i in range(self._trials(members))]
        children = sum(draw < self.config.cross_rate for draw in crossed)
        return children + sum(self._mutates(t, i) for i in range(members + children))

    def most_rows(self, t: int) -> int:
        return self._most_offspring(t, len(self.state.members))

    def _children(self, t: int) -> np.ndarray:
        members, children = self.state.members, []
        for i in range(self._trials(len(members)) if members.succeeded.sum() >= 2 else 0):
            rng = stream(self.seed, "crossover", t, i)
            if rng.random() < self.config.cross_rate:
                children.append(self._child(rng))
        return np.reshape(children, (len(children), len(self.basis)))

    def _trials(self, members: int) -> int:
        """Crossover trials over so many members."""
        return members // 2

    def _child(self, rng: np.random.Generator) -> np.ndarray:
        """The child [J] of two parents; at least two members did not fail."""
        members, weights = self.state.members, roulette_weights(self.state.members.utilities)
        a, b = roulette(rng, weights, members.succeeded, 2)
        return cross(members.rows[a], members.rows[b], weights[a], weights[b])

    def _mutates(self, t: int, i: int) -> bool:
        return bool(stream(self.seed, "mutation", t, i).random() < self.config.mutation_rate)

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.members, self.state.members

    def rebase_plan(self) -> np.ndarray | None:
        """Rows [R, J] of noise alone, whose vectors must be saved before `rebase`; None if no re-basing is due.

        Re-basing is due when more than max_noise_vectors noise columns are used by rows of the state (members,
        velocities, personal bests, global best and worst) and these rows have fewer distinct noise parts. Otherwise an
        empty plan [0, J] means that some columns are unused and `rebase([])` drops them.
        """
        self._require_boundary()
        return plan(self.state, len(self.experts), self.config.max_noise_vectors)

    def rebase(self, paths: Sequence[str]) -> None:
        """Replace all noise columns by one `SavedVector` per row of the plan, in its order.

        Each row of the state then uses 1.0 times the vector of its own noise part; expert coefficients do not change.
        With an empty plan: drop the unused noise columns.

        Raises:
            ValueError: no re-basing is due, or there is not one path per row of the plan.
        """
        rows = self.rebase_plan()
        n = len(self.experts)
        if rows is None or len(paths) != len(rows) or len(set(paths)) < len(paths):
            raise ValueError(f"{len(paths)} path(s) do not fit the re-basing plan: it needs one distinct path per row")
        if len(rows):
            replace(self.state, n, rows)
            self.basis = [*self.basis[:n], *(SavedVector(path) for path in paths)]
        else:
            kept = np.concatenate([np.ones(n, dtype=bool), noise_parts(self.state, n).any(axis=0)])
            map_rows(self.state, lambda array: array[:, kept])
            self.basis = [vector for vector, keep in zip(self.basis, kept, strict=True) if keep]
