"""Pools in which a particle is a vector of coefficients over models, and not weights: mixtures and steering.

A particle has one tensor, `mixing` [N] in fp32: the coefficients of N models that run side by side. Expert i is one-hot
at i, so rows, moves, noise and records are those of every pool, and the weights of a row are its coefficients.

Source: Token Swarms, in Model Swarms (arXiv 2410.11163); proxy-tuning (arXiv 2401.08565); value-augmented sampling
(arXiv 2405.06639).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import Expert
from evoswarm.weights.stored import Stored
from evoswarm.weights.tensorfile import TensorSpec
from evoswarm.weights.words import grouped

MIXING = "mixing"
"""Name of the tensor of coefficients."""
HEAD = "score.weight"
"""The score head [labels, hidden] of a causal model, which reads the last token. Other heads have other names."""


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


def is_value(expert: Expert) -> bool:
    """Whether a member is a sequence-classification model: it predicts no tokens, and scores texts."""
    return any(name.endswith("ForSequenceClassification") for name in expert.config.get("architectures") or ())


def member_problems(experts: Sequence[Expert], config: PoolConfig) -> list[str]:
    """Why adapters and checkpoints cannot be members of a pool."""
    return grouped((expert.name, problem) for expert in experts for problem in _problems(expert, config))


def _problems(expert: Expert, config: PoolConfig) -> Iterator[str]:
    if not is_value(expert):
        if config.kind == "steering" and config.small_model is None:
            yield "steers by its difference from a small base model, which is missing: set pool.small_model"
    elif config.kind != "steering":
        yield "is a sequence-classification model, which predicts no tokens; only pool.kind steering takes it"
    elif HEAD not in expert.specs:
        yield f"has no {HEAD}; a value model is a causal one with a score head, such as LlamaForSequenceClassification"
    elif (labels := expert.specs[HEAD].shape[0]) != 1:
        yield f"has {labels} labels; a value model has one"
