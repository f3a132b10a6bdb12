"""Learns a gate, and decides whether it is worth using."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evoswarm.route.gate import Examples, Gate, always, fit_gate, out_of_fold, routed


@dataclass(frozen=True, eq=False)
class Learned:
    """A gate, and what it is worth on validation.

    Attributes:
        gate: learned from all examples; if it is not better than the best candidate alone, it always takes that one.
        unseen: the candidate [E] that gates choose for examples that they have not seen.
        expected: the utility of these choices.
        alone: the utility of the best candidate alone.
        gains: whether `expected` is higher.
    """

    gate: Gate
    unseen: np.ndarray
    expected: float
    alone: float
    gains: bool


def learn(
    examples: Examples, groups: Sequence[np.ndarray], *, seed: int, value: Callable[[list[float]], float]
) -> Learned:
    """Fit a gate, and the same way on folds to see what it is worth.

    Args:
        examples: validation examples with the scores of the candidates, best first.
        groups: masks [N] of candidates, one of which is chosen.
        seed: of the folds.
        value: the utility of scores by example.
    """

    def fit(part: Examples) -> Gate:
        return fit_gate(part, groups, seed=seed)

    unseen = out_of_fold(examples, fit, seed=seed)
    expected, alone = value(routed(examples.scores, unseen).tolist()), value(examples.scores[0].tolist())
    gate, gains = fit(examples), expected > alone
    return Learned(gate if gains else always(0, gate), unseen if gains else unseen * 0, expected, alone, gains)
