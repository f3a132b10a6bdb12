"""Which models are combined, and how a particle's vector of mixing weights becomes a coefficient for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evoswarm.engine.combined.rules import RuleName
from evoswarm.weights.base import BASE
from evoswarm.weights.config import CANDIDATES, PoolConfig
from evoswarm.weights.expert import Expert
from evoswarm.weights.hub import model_folder
from evoswarm.weights.members import is_adapter, is_value
from evoswarm.weights.pool import Pool


@dataclass(frozen=True)
class Member:
    """One model.

    Attributes:
        model: folder or hub name.
        adapter: folder of an adapter that is merged into it; None: none.
        value: whether it is a value model, which scores what others predict.
    """

    model: str
    adapter: Path | None = None
    value: bool = False


@dataclass(frozen=True)
class Combination:
    """Models that answer as one.

    Attributes:
        rule: how their scores are combined.
        reference: the model itself: what answers if no particle is installed. With steering it is what is steered.
        experts: in the order of a particle's mixing weights.
        small: with steering, the model that the experts were made from, besides value models.
        candidates: how many of the likeliest tokens value models are asked about.
    """

    rule: RuleName
    reference: Member
    experts: tuple[Member, ...]
    small: Member | None = None
    candidates: int = CANDIDATES

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The different models; the first one is the reference, and value models are the last ones."""
        given = (self.reference, self.small, *self.experts)
        found = dict.fromkeys(member for member in given if member is not None)
        return tuple(sorted(found, key=lambda member: member.value))

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
                total[self.members.index(expert)] += float(weight)
                if self.small is not None and not expert.value:
                    total[self.members.index(self.small)] -= float(weight)
        return total.astype(np.float32)


def combination_of(config: PoolConfig, pool: Pool, *, model: str) -> Combination:
    """The combination of a pool's experts as models: mixed, or steering the base model if the pool's kind is that.

    Args:
        config: of the pool.
        pool: its experts.
        model: base model folder or hub name.

    Raises:
        UserError: a model is not here and cannot be downloaded.
    """
    reference = Member(model_folder(model))
    small = None
    if config.small_model is not None and not all(map(is_value, pool.experts)):
        small = Member(model_folder(config.small_model))
    experts = [_member(expert, (small or reference).model) for expert in pool.experts]
    if pool.is_zero(BASE) and not pool.steers:
        experts.append(reference)
    rule: RuleName = "steering" if pool.steers else "mix"
    return Combination(rule, reference, tuple(experts), small, config.candidates)


def _member(expert: Expert, base: str) -> Member:
    return Member(base, expert.path) if is_adapter(expert) else Member(str(expert.path), value=is_value(expert))
