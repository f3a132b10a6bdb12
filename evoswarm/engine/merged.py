"""A particle's weights as a checkpoint's tensors, for engines that load checkpoints: W + s B A from a kept base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from evoswarm.errors import UserError
from evoswarm.weights.device import to_torch
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling

Tensors = Iterator[tuple[str, torch.Tensor]]


class MergedBase:
    """What to load for a particle, by checkpoint names.

    The tensors that adapters touch, and those that an engine fuses with them, are kept as the base has them; every load
    starts from these, so the base comes back bit for bit. Of full checkpoints nothing is kept: the base is read again.
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
            read_base: goes through the base checkpoint.
            adapter: adapter_config.json; None where weights are full checkpoints.
            fused: names of modules that the engine loads as one, e.g. {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}.
            tied: the engine keeps one tensor as embedding and as head.
        """
        self._read_base, self._adapter, self._tied = read_base, adapter, tied
        self._together = {part: parts for parts in fused.values() for part in parts}
        self._kept: dict[str, torch.Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}

    def load(self, weights: Mapping[str, np.ndarray] | None) -> Tensors:
        """The tensors to load, checked before the first one comes.

        Raises:
            UserError: tensors that the base has no place for.
        """
        tensors = {name: to_torch(array) for name, array in (weights or {}).items()}
        if not self._shapes:
            self._shapes = {name: tensor.shape for name, tensor in self._read_base()}
        if self._adapter is None:
            return self._checkpoint(tensors)
        pairs = {f"{module}.weight": pair for module, pair in lora_modules(tensors).items()}
        whole = full_tensors(tensors)
        self._check({name: self._product(name, pair) for name, pair in pairs.items()})
        self._check({name: tensor.shape for name, tensor in whole.items()})
        self._keep({*pairs, *whole})
        return self._merge(pairs, whole)

    def _checkpoint(self, tensors: dict[str, torch.Tensor]) -> Tensors:
        if self._tied and "lm_head.weight" not in self._shapes:
            tensors.pop("lm_head.weight", None)  # some files hold the shared tensor twice
        self._check({name: tensor.shape for name, tensor in tensors.items()})
        return iter(tensors.items()) if tensors else iter(self._read_base())

    def _merge(self, pairs: Mapping[str, LoraPair[torch.Tensor]], whole: Mapping[str, torch.Tensor]) -> Tensors:
        for name, kept in self._kept.items():
            start = whole.get(name, kept)
            if name not in pairs:
                yield name, start
                continue
            delta = pairs[name].b.float() @ pairs[name].a.float()
            if self._transposed(pairs[name]):
                delta = delta.T
            factor = scaling(self._adapter or {}, name.rpartition(".")[0])
            yield name, start.to(torch.float32, copy=True).add_(delta, alpha=factor).to(kept.dtype)

    def _transposed(self, pair: LoraPair[torch.Tensor]) -> bool:
        """Whether the base has the module as [in, out]: embeddings, and the layers of GPT-2."""
        return pair.embedding or bool((self._adapter or {}).get("fan_in_fan_out"))

    def _product(self, name: str, pair: LoraPair[torch.Tensor]) -> torch.Size:
        """The shape of B A, as the base has it."""
        if pair.a.ndim != 2 or pair.b.ndim != 2 or len(pair.a) != pair.b.shape[1]:
            shapes = f"A {list(pair.a.shape)} and B {list(pair.b.shape)}"
            raise UserError(f"the experts' {name} has {shapes}, which do not multiply; save the experts again")
        shape = torch.Size((len(pair.b), pair.a.shape[1]))
        return shape[::-1] if self._transposed(pair) else shape

    def _check(self, shapes: Mapping[str, torch.Size]) -> None:
        for name, shape in shapes.items():
            if name not in self._shapes:
                raise UserError(f"the experts adapt {name}, which the base model's files do not hold; check `model`")
            if self._adapter is not None and self._tied and name.split(".")[-2] in ("embed_tokens", "wte", "lm_head"):
                raise UserError(
                    f"the experts adapt {name}, which this model shares between embedding and head; take an engine "
                    "that can separate them (engine.type: transformers)"
                )
            if shape != self._shapes[name]:
                have = list(self._shapes[name])
                raise UserError(f"the experts' {name} is {list(shape)}, the base model's {have}; check `model`")

    def _keep(self, names: set[str]) -> None:
        """Keep all tensors of these modules and of those that are fused with them."""
        modules = {name.rpartition(".")[0] for name in names}
        modules |= {
            f"{parent}.{part}"
            for parent, _, last in (module.rpartition(".") for module in modules)
            for part in self._together.get(last, ())
        }
        if all(name in self._kept for name in names):
            return
        for name, tensor in self._read_base():
            if name.rpartition(".")[0] in modules:
                self._kept.setdefault(name, tensor.clone())
