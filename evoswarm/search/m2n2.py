"""M2N2: competition for examples, and mates whose right answers complement each other.

João Abrantes, Robert Lange and Yujin Tang, 2025, "Competition and Attraction Improve Model Fusion", arXiv 2508.16204.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evoswarm.rows import BasisVector, LayersVector
from evoswarm.search.config import Evolution, Patience
from evoswarm.search.operators import roulette
from evoswarm.search.rng import stream
from evoswarm.search.sampling import SamplingSearch, SamplingState
from evoswarm.search.spans import LayerSpans, span_basis
from evoswarm.search.state import Measured, Outcomes, Steps, no_numbers
from evoswarm.section import NonNegative


class M2N2(Evolution):
    """Mates that are right where the other is wrong, mixed with a split point of layers (M2N2, arXiv 2508.16204)."""

    type: Literal["m2n2"] = "m2n2"
    patience: Patience = None
    offspring: int = Field(10, ge=1)
    """Children of a generation. M2N2 has one at a time; with more, a cluster can share them."""
    competition: NonNegative = 1.0
    """Exponent alpha: how strongly members that are right on the same example share its value; 0: not at all."""
    layer_spans: LayerSpans = None

    outcomes: ClassVar[bool] = True

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """One child at a time, as published."""
        return super().at_budget(budget, experts=experts) | {"offspring": 1}


def no_scores() -> np.ndarray:
    """No member and no example."""
    return np.zeros((0, 0, 1))


@dataclass
class M2N2State(SamplingState):
    """`members` [P] with the `scores` [P, E, 1] of each on every example; `weights` [E] of the examples."""

    members: Measured = field(default_factory=Measured)
    scores: np.ndarray = field(default_factory=no_scores)
    weights: np.ndarray = field(default_factory=no_numbers)


def shared(scores: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """What each member gets of each example [P, E]: w_e s_ie / z_e^alpha, z_e = sum_i s_ie (1 where that is 0).

    Scores that are not in 0..1 are scaled and shifted into it first, all alike.
    Source: M2N2 (arXiv 2508.16204), competition for limited resources, and its code for alpha.

    Args:
        scores: of members on examples [P, E].
        weights: share of each example in the utility [E].
        alpha: 1 as published; 0 is no competition.
    """
    scores = scores / max(1.0, np.abs(scores).max())
    scores = scores - min(scores.min(), 0.0)
    total = scores.sum(axis=0)
    return np.asarray(weights * scores / np.where(total > 0, total, 1.0) ** alpha)


class M2N2Search(SamplingSearch):
    """M2N2 (arXiv 2508.16204) over one coefficient per expert and span of layers.

    Every measured row enters the members, the experts first, unless it is one of them. If there are more than
    `population`, the one with the smallest sum over examples of `shared` leaves (ties: the oldest).

    Generation t > 0: `offspring` children. The first parent i is drawn by its sum of `shared`, the second parent j by
    its attraction to i (M2N2's g), sum_e max(0, shared_je - shared_ie), evenly if all are 0. With w = U(0, 1), the
    child is w x_i + (1 - w) x_j from a random span on, and (1 - w) x_i + w x_j before it. M2N2's code takes slerp in
    place of these sums, which is not linear in the experts. There is no mutation, as published for trained models.
    Draws: "mate"(t, i) of child i: the first parent, the second parent, random() = w, integers(spans) = the split.

    Coefficients of a span sum to 1.
    """

    config_class = M2N2
    config: M2N2
    state: M2N2State
    state_class = M2N2State

    def _first_basis(self, layers: int | None) -> list[BasisVector]:
        if layers is None or self.config.layer_spans == 1:
            return super()._first_basis(layers)
        return span_basis(self.experts, layers=layers, spans=self.config.layer_spans)

    def _expert_rows(self) -> np.ndarray:
        if self.config.layer_spans != 1 and not isinstance(self.basis[0], LayersVector):
            raise ValueError("a search over spans of layers needs the number of `layers`")
        return np.kron(np.eye(len(self.experts)), np.ones((1, len(self.basis) // len(self.experts))))

    def most_rows(self, t: int) -> int:
        return self.config.offspring

    def _learn(self, fresh: Measured, outcomes: Outcomes) -> None:
        self.state.weights = outcomes.weights.copy()
        for i in np.flatnonzero(fresh.succeeded):
            self._enter(fresh.take([i]), outcomes.scores[i][None, :, None])

    def _enter(self, fresh: Measured, scores: np.ndarray) -> None:
        state = self.state
        if not len(state.members):
            state.members, state.scores = fresh, scores
        elif not (state.members.rows == fresh.rows).all(axis=1).any():
            state.members, state.scores = state.members.join(fresh), np.concatenate([state.scores, scores])
        if len(state.members) > self.config.population:
            kept = np.delete(np.arange(len(state.members)), self._shared.sum(axis=1).argmin())
            state.members, state.scores = state.members.take(kept), state.scores[kept]

    @property
    def _shared(self) -> np.ndarray:
        return shared(self.state.scores[:, :, 0], self.state.weights, self.config.competition)

    def _advance(self, t: int) -> Steps:
        self._keep((yield self._ask_samples(t, np.array(list(self._children(t))))))

    def _children(self, t: int) -> Iterator[np.ndarray]:
        """Rows [J] of children of the members."""
        rows, gains = self.state.members.rows, self._shared
        spans = len(self.basis) // len(self.experts)
        for i in range(self.config.offspring):
            rng, everyone = stream(self.seed, "mate", t, i), np.ones(len(rows), dtype=bool)
            (first,) = roulette(rng, gains.sum(axis=1), everyone, 1)
            attraction = np.maximum(0.0, gains - gains[first]).sum(axis=1)
            (second,) = roulette(rng, attraction, np.arange(len(rows)) != first, 1)
            w, split = rng.random(), rng.integers(spans)
            of_first = np.tile(np.where(np.arange(spans) < split, 1 - w, w), len(self.experts))
            yield of_first * rows[first] + (1 - of_first) * rows[second]

    def _members(self) -> tuple[Measured, Measured]:
        return self.state.members, self.state.members
