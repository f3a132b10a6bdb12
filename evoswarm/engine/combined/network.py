"""Several models of transformers as one network; each has its own keys and values."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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

    def join(self, other: Caches, *, pads: tuple[int, int]) -> None:
        """Append the rows of other caches of the same models, with `pads` invisible tokens before these and those."""
        for i, cache in self.of.items():
            for mine, more in zip(cache.layers, other.of[i].layers, strict=True):
                mine.keys = torch.cat([_padded(mine.keys, pads[0]), _padded(more.keys, pads[1])])
                mine.values = torch.cat([_padded(mine.values, pads[0]), _padded(more.values, pads[1])])


def _padded(tensor: torch.Tensor, pad: int) -> torch.Tensor:
    """Keys or values [B, H, T, D] with columns before (or without some of them, if `pad` is negative)."""
    return torch.nn.functional.pad(tensor, (0, 0, pad, 0))


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
        logits, caches = outputs_of({i: self.networks[i] for i in active}, inputs, keep=keep, use_cache=use_cache)
        coefficients = self.coefficients[:, active].to(self.device)
        return Combined(combined(self._rule, logits, coefficients), caches)


def outputs_of(
    networks: Mapping[int, SingleNetwork], inputs: dict[str, Any], *, keep: int, use_cache: bool = False
) -> tuple[list[torch.Tensor], Caches]:
    """Logits [B, keep, V] of models by their position, and their keys and values; see `Network.forward`."""
    past: Caches | None = inputs.get("past_key_values")
    logits, caches = [], {}
    for i, network in networks.items():
        own = inputs if past is None else inputs | {"past_key_values": past.of[i]}
        output = network.forward(own, keep=keep, use_cache=use_cache)
        logits.append(output.logits)
        if use_cache:
            caches[i] = output.past_key_values
    return logits, Caches(caches)
