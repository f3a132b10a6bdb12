"""Several models of transformers as one network; each has its own keys and values."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evoswarm.engine.combined.rules import RuleName, combined, valued
from evoswarm.engine.combined.values import ValueNetwork
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
        networks: the models; value models are the last ones.
        coefficients: [B, M] of the rows of the next batches, or [1, M] of all; keys and values belong to the models
            that have one.
    """

    def __init__(self, networks: Sequence[SingleNetwork], rule: RuleName, *, candidates: int = 0) -> None:
        """`candidates` is how many of the likeliest tokens value models are asked about."""
        self.networks, self._rule, self._candidates = networks, rule, candidates
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
        values = {i: one for i in active if isinstance(one := self.networks[i], ValueNetwork)}
        writers = {i: self.networks[i] for i in active if i not in values}
        logits, caches = outputs_of(writers, inputs, keep=keep, use_cache=use_cache)
        scores = combined(self._rule, logits, self.coefficients[:, list(writers)].to(self.device))
        return Combined(self._valued(scores, values, inputs, caches) if values else scores, caches)

    def _valued(
        self, scores: torch.Tensor, networks: Mapping[int, ValueNetwork], inputs: dict[str, Any], caches: Caches
    ) -> torch.Tensor:
        """Scores [B, keep, V] with what value models add; their keys and values join the others."""
        logprobs = scores[..., : self.rows].log_softmax(-1)
        candidates = logprobs.topk(min(self._candidates, self.rows)).indices
        total = torch.zeros_like(candidates, dtype=logprobs.dtype)
        for i, network in networks.items():
            values, caches.of[i] = network.values(_own(inputs, i), candidates)
            total += self.coefficients[:, i, None, None].to(self.device) * values
        return valued(logprobs, candidates, total)


def outputs_of(
    networks: Mapping[int, SingleNetwork], inputs: dict[str, Any], *, keep: int, use_cache: bool = False
) -> tuple[list[torch.Tensor], Caches]:
    """Logits [B, keep, V] of models by their position, and their keys and values; see `Network.forward`."""
    logits, caches = [], {}
    for i, network in networks.items():
        output = network.forward(_own(inputs, i), keep=keep, use_cache=use_cache)
        logits.append(output.logits)
        if use_cache:
            caches[i] = output.past_key_values
    return logits, Caches(caches)


def _own(inputs: dict[str, Any], position: int) -> dict[str, Any]:
    """The inputs of one model, with its own keys and values."""
    past: Caches | None = inputs.get("past_key_values")
    return inputs if past is None else inputs | {"past_key_values": past.of[position]}
