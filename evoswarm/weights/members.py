"""Pools in which a particle is a vector of coefficients over models, and not weights: mixtures and steering.

A particle has one tensor, `mixing` [N] in fp32: the coefficients of N models that run side by side. Expert i is one-hot
at i, so rows, moves, noise and records are those of every pool, and the weights of a row are its coefficients.

Source: Token Swarms, in Model Swarms (arXiv 2410.11163); proxy-tuning (arXiv 2401.08565).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.expert import Expert
from evoswarm.weights.stored import Stored
from evoswarm.weights.tensorfile import TensorSpec

MIXING = "mixing"
"""Name of the tensor of coefficients."""


@dataclass(frozen=True)
class OneHot:
    """A vector [size] in memory that is 1 at a position and 0 elsewhere."""

    position: int
    size: int

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """The tensor by name."""
        return {MIXING: TensorSpec(MIXING, (self.size,), "F32")}

    def flat(self, name: str) -> np.ndarray:
        """The vector."""
        assert name == MIXING
        return np.eye(1, self.size, self.position, np.float32)[0]


def is_adapter(expert: Expert) -> bool:
    """Whether a member is an adapter, which stands for its base model with it."""
    return (expert.path / ADAPTER_CONFIG).exists()


def as_members(experts: Sequence[Expert]) -> list[Expert]:
    """Adapters and checkpoints as members of one mix, in their order. They keep their files, and so their hashes."""
    return [
        replace(expert, kind="model", stored={MIXING: Stored.of(OneHot(i, len(experts)), MIXING)})
        for i, expert in enumerate(experts)
    ]
