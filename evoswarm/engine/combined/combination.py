"""Which models are combined, and how a particle's vector of mixing weights becomes a coefficient for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evoswarm.engine.combined.rules import RuleName
from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.base import BASE
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.hub import model_folder
from evoswarm.weights.pool import Pool


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
        experts: in the order of a particle's mixing weights.
        small: with steering, the model that the experts were made from.
    """

    rule: RuleName
    reference: Member
    experts: tuple[Member, ...]
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
                total[self.members.index(expert)] += float(weight)
                if self.small is not None:
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
    small = None if config.small_model is None else Member(model_folder(config.small_model))
    experts = [_member(expert.path, (small or reference).model) for expert in pool.experts]
    if pool.is_zero(BASE) and small is None:
        experts.append(reference)
    return Combination("mix" if small is None else "steering", reference, tuple(experts), small)


def _member(folder: Path, base: str) -> Member:
    return Member(base, folder) if (folder / ADAPTER_CONFIG).exists() else Member(str(folder))
