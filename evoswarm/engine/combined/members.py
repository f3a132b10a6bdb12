"""Which models are combined, and how a particle's vector of mixing weights becomes a coefficient for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evoswarm.engine.combined.rules import RuleName

MIXING = "mixing"
"""The name of the one tensor of a particle whose experts are whole models."""


@dataclass(frozen=True)
class Member:
    """One model.

    Attributes:
        model: folder or hub name.
        adapter: folder of an adapter that is merged into it; None: none.
    """

    model: str
    adapter: Path | None = None


@dataclass(frozen=True)
class Combination:
    """Models that answer as one.

    Attributes:
        rule: how their scores are combined.
        reference: the model itself: what answers if no particle is installed. With steering it is what is steered.
        experts: in the order of a particle's mixing weights. None: the reference.
        small: with steering, the model that the experts were made from.
    """

    rule: RuleName
    reference: Member
    experts: tuple[Member | None, ...]
    small: Member | None = None

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The different models; the first one is the reference."""
        given = (self.reference, self.small, *self.experts)
        return tuple(dict.fromkeys(member for member in given if member is not None))

    def weights(self, mixing: np.ndarray | Sequence[float] | None) -> np.ndarray:
        """The coefficient of each member [M] in fp32.

        Args:
            mixing: a particle's weights [N] of the experts; None: the reference alone.
        """
        total = np.zeros(len(self.members))
        if mixing is None or self.rule == "steering":
            total[0] = 1
        if mixing is not None:
            for weight, expert in zip(mixing, self.experts, strict=True):
                self._add(total, float(weight), expert)
        return total.astype(np.float32)

    def _add(self, total: np.ndarray, weight: float, expert: Member | None) -> None:
        """Add an expert's part: with steering its difference from the small base, and nothing for the reference."""
        if self.rule == "mix":
            total[self.members.index(expert or self.reference)] += weight
        elif expert is not None and self.small is not None:
            total[self.members.index(expert)] += weight
            total[self.members.index(self.small)] -= weight
