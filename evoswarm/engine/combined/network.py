"""Several models of transformers as one network; each has its own keys and values."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evoswarm.engine.combined.rules import RuleName, combined
from evoswarm.engine.network import SingleNetwork


@dataclass
class Caches:
    """Keys and values of each model by its position; a model without a coefficient has none."""

    of: dict[int, Any]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        for cache in self.of.values():
            cache.batch_select_indices(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        for cache in self.of.values():
            cache.batch_repeat_interleave(repeats)


@dataclass
class Combined:
    """Logits [B, keep, V] whose softmax is the combined distribution, and the keys and values they came from."""

    logits: torch.Tensor
    past_key_values: Caches


class CombinedNetwork:
    """Models with one vocabulary that answer as one.

    Attributes:
        coefficients: [B, M] of the rows of the next batches, or [1, M] of all; keys and values belong to the models
            that have one.
    """

    def __init__(self, networks: Sequence[SingleNetwork], rule: RuleName) -> None:
        self.networks, self._rule = networks, rule
        self.branches = all(one.branches for one in networks)
        self.longest = min((one.longest for one in networks if one.longest is not None), default=None)
        self.rows = min(one.rows for one in networks)
        self.exact = all(one.exact for one in networks)
        self.coefficients = torch.eye(len(networks))[:1]

    @property
    def device(self) -> torch.device:
        """See `Network`."""
        return self.networks[0].device

    def rows_of(self, positions: Sequence[int]) -> CombinedNetwork:
        """This network for some prompts of a call."""
        view = copy.copy(self)
        if len(self.coefficients) > 1:
            view.coefficients = self.coefficients[list(positions)]
        return view

    def forward(self, inputs: dict[str, Any], *, keep: int, use_cache: bool = False) -> Combined:
        """See `Network.forward`. A model that has no coefficient in any row is not run."""
        active = self.coefficients.any(0).nonzero().flatten().tolist() or [0]
        past: Caches | None = inputs.get("past_key_values")
        logits, caches = [], {}
        for i in active:
            own = inputs if past is None else inputs | {"past_key_values": past.of[i]}
            output = self.networks[i].forward(own, keep=keep, use_cache=use_cache)
            logits.append(output.logits)
            if use_cache:
                caches[i] = output.past_key_values
        coefficients = self.coefficients[:, active].to(logits[0].device)
        return Combined(combined(self._rule, logits, coefficients), Caches(caches))
