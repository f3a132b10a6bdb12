"""Checks a particle's weights against a checkpoint, and merges them by the checkpoint's names: W + s B A."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from evoswarm.engine.merge import FLOATS, Merge, check_dtype, merged_shape
from evoswarm.errors import UserError
from evoswarm.weights.device import LazyTensors, to_torch
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling

Tensors = Iterator[tuple[str, torch.Tensor]]
Pair = LoraPair[torch.Tensor]
_SHARED = ("embed_tokens", "wte", "lm_head")
"""Modules whose tensor embedding and head may share."""


@dataclass(frozen=True)
class Change:
    """What a particle changes, by names of the base's parameters."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    """Adapters of parameters."""
    whole: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Replaced parameters; those of a checkpoint are made when they are read. A parameter with both is the sum."""

    @property
    def names(self) -> set[str]:
        """All parameters that change."""
        return {*self.pairs, *self.whole}


class MergedBase:
    """A base checkpoint that particles are merged into, by checkpoint names.

    The base's tensors are not copied: they are views of the checkpoint's files, which all processes of a node share.
    """

    def __init__(
        self,
        read_base: Callable[[], Iterable[tuple[str, torch.Tensor]]],
        *,
        adapter: Mapping[str, Any] | None,
        fused: Mapping[str, list[str]],
        tied: bool = False,
    ) -> None:
        """
        Args:
            read_base: iterates over the base checkpoint.
            adapter: adapter_config.json; None if weights are full checkpoints.
            fused: names of modules that the engine loads as one, e.g. {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}.
            tied: the engine uses one tensor as embedding and as head.
        """
        self._read_base, self.adapter, self._tied = read_base, adapter, tied
        self._together = {part: parts for parts in fused.values() for part in parts}
        self._kept: dict[str, torch.Tensor] = {}
        self._kinds: dict[str, tuple[torch.Size, torch.dtype]] = {}

    def change(self, weights: Mapping[str, np.ndarray] | None) -> Change:
        """What the weights change.

        Raises:
            UserError: tensors that the base has no place for, or a quantized base.
        """
        if not self._kinds:
            self._kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in self._read_base()}
        if self.adapter is None:
            # Some files contain the shared tensor twice.
            twice = {"lm_head.weight"} - self._kinds.keys() if self._tied else set()
            change = Change(whole=LazyTensors(weights or {}, [name for name in weights or {} if name not in twice]))
        else:
            tensors = {name: to_torch(array, read_only=True) for name, array in (weights or {}).items()}
            pairs = {f"{module}.weight": pair for module, pair in lora_modules(tensors).items()}
            change = Change(pairs, full_tensors(tensors))
        for name in sorted(change.names):
            self._check_name(name)
            if self.adapter is not None:
                self._check(name, change.whole.get(name), change.pairs.get(name))
        return change

    def load(self, change: Change) -> Tensors:
        """All tensors to load for a change. Those of a checkpoint are made and checked one by one.

        Raises:
            UserError: while iterating, a tensor of a checkpoint does not fit to the base.
        """
        if self.adapter is None:
            return self._checked(change.whole) if change.whole else iter(self._read_base())
        self._keep(change.names)
        return ((name, self._merged(name, kept, change)) for name, kept in self._kept.items())

    def read(self, names: set[str]) -> Tensors:
        """The base's tensors of these names."""
        return ((name, tensor) for name, tensor in self._read_base() if name in names)

    def _keep(self, names: set[str]) -> None:
        """Keep views of all tensors of these modules and of those that are fused with them."""
        modules = {name.rpartition(".")[0] for name in names}
        modules |= {
            f"{parent}.{part}"
            for parent, _, last in (module.rpartition(".") for module in modules)
            for part in self._together.get(last, ())
        }
        if not names <= self._kept.keys():
            for name, tensor in self._read_base():
                if name.rpartition(".")[0] in modules:
                    self._kept.setdefault(name, tensor)

    def transposed(self, pair: Pair) -> bool:
        """Whether the base has the module as [in, out]: embeddings, and the layers of GPT-2."""
        return pair.embedding or bool((self.adapter or {}).get("fan_in_fan_out"))

    def scale(self, name: str) -> float:
        """The adapter's factor for a parameter."""
        return scaling(self.adapter or {}, name.rpartition(".")[0])

    def _merged(self, name: str, kept: torch.Tensor, change: Change) -> torch.Tensor:
        start, pair = change.whole.get(name, kept), change.pairs.get(name)
        if pair is None:
            return start
        merged = torch.empty_like(kept)
        Merge(merged, start, pair.a, pair.b, self.scale(name), self.transposed(pair)).write()
        return merged

    def _check_name(self, name: str) -> None:
        if name not in self._kinds:
            raise UserError(f"the experts adapt {name}, which the base model's files do not contain; check `model`")
        if self.adapter is not None and self._tied and name.split(".")[-2] in _SHARED:
            raise UserError(
                f"the experts adapt {name}, which this model shares between embedding and head; use an engine "
                "that can separate them (engine.type: transformers)"
            )

    def _check(self, name: str, whole: torch.Tensor | None, pair: Pair | None) -> None:
        """Check whether these weights fit to the base."""
        have, dtype = self._kinds[name]
        shapes = [] if whole is None else [whole.shape]
        if pair is not None:
            shapes.append(merged_shape(name, pair, transposed=self.transposed(pair)))
        if pair is not None or (whole is not None and whole.dtype in FLOATS):
            check_dtype(name, dtype)
        for shape in shapes:
            if shape != have:
                raise UserError(f"the experts' {name} is {list(shape)}, the base model's {list(have)}; check `model`")

    def _checked(self, whole: Mapping[str, torch.Tensor]) -> Tensors:
        for name, tensor in whole.items():
            self._check(name, tensor, None)
            yield name, tensor
