"""Checks a particle's weights against a checkpoint, and merges them by the checkpoint's names: W + s B A."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from evoswarm.engine.merge import FLOATS, Merge, check_dtype
from evoswarm.engine.targets import Product, Target, check_whole, read_targets, shared
from evoswarm.errors import UserError
from evoswarm.weights.device import LazyTensors
from evoswarm.weights.model_names import Location, ModelNames

Tensors = Iterator[tuple[str, torch.Tensor]]


@dataclass(frozen=True)
class Change:
    """What a particle changes, by names of the base checkpoint."""

    products: dict[str, Product] = field(default_factory=dict)
    """What adapters add to tensors."""
    whole: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Replaced tensors; those of a checkpoint are made when they are read. A tensor with both is the sum."""

    @property
    def names(self) -> set[str]:
        """All parameters that change."""
        return {*self.products, *self.whole}


class _Whole(Mapping[str, torch.Tensor]):
    """What replaces tensors of the base, each made when it is read."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._targets[name].whole()
        assert tensor is not None
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


class MergedBase:
    """A base checkpoint that particles are merged into, by checkpoint names.

    The base's tensors are not copied: they are views of the checkpoint's files, which all processes of a node share.
    """

    def __init__(
        self,
        read_base: Callable[[], Iterable[tuple[str, torch.Tensor]]],
        *,
        names: ModelNames,
        adapter: Mapping[str, Any] | None,
        fused: Mapping[str, list[str]],
    ) -> None:
        """
        Args:
            read_base: iterates over the base checkpoint.
            names: of the model as transformers has it, which decides where tensors go.
            adapter: adapter_config.json; None if weights are full checkpoints.
            fused: names of modules that the engine loads as one, e.g. {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}.
        """
        self._read_base, self._names, self.adapter = read_base, names, adapter
        self._together = {part: parts for parts in fused.values() for part in parts}
        self._kept: dict[str, torch.Tensor] = {}
        self._kinds: dict[str, tuple[torch.Size, torch.dtype]] = {}
        self._files: dict[Location, str] = {}

    def change(self, weights: Mapping[str, np.ndarray] | None) -> Change:
        """What the weights change.

        Raises:
            UserError: tensors that the base has no place for, or a quantized base.
        """
        if not self._kinds:
            self._kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in self._read_base()}
            self._files = {place: name for name in self._kinds if (place := self._names.find(name))}
        arrays = weights or {}
        read = read_targets(self._names, self.adapter, LazyTensors(arrays, list(arrays))).require()
        targets = {self._file(target): target for target in read if not self._repeats(target)}
        products = {name: target.product for name, target in targets.items() if target.product is not None}
        change = Change(products, _Whole({name: t for name, t in targets.items() if t.source is not None}))
        for name in sorted(change.names) if self.adapter is not None else ():
            self._check(name, change.whole.get(name), name in products)
        return change

    def _repeats(self, target: Target) -> bool:
        """Whether it is the second copy of a shared tensor: some checkpoints hold the embedding as the head, too."""
        return self.adapter is None and target.location not in self._files and self._names.shared(target.location)

    def _file(self, target: Target) -> str:
        """The target's name in the base checkpoint."""
        if self.adapter is not None and self._names.shared(target.location):
            raise UserError(f"the experts do not fit: {shared(target)}")
        if target.location not in self._files:
            raise UserError(f"the experts do not fit: {target.name} is not in the base model's files; check `model`")
        return self._files[target.location]

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
        modules = {module for name in names for module in self._fused_with(name)}
        if not names <= self._kept.keys():
            for name, tensor in self._read_base():
                if self._module(name) in modules:
                    self._kept.setdefault(name, tensor)

    def _fused_with(self, name: str) -> list[str]:
        """The modules that the engine loads as one with that of a tensor, itself included."""
        module = self._module(name)
        parent, _, last = module.rpartition(".")
        return [module, *(f"{parent}.{part}" for part in self._together.get(last, ()))]

    def _module(self, name: str) -> str:
        """The module of a tensor of the base; all experts of a mixture of experts are one module."""
        location = self._names.find(name)
        return (name if location is None or location.expert is None else location.tensor).rpartition(".")[0]

    def _merged(self, name: str, kept: torch.Tensor, change: Change) -> torch.Tensor:
        start, product = change.whole.get(name, kept), change.products.get(name)
        if product is None:
            return start
        merged = torch.empty_like(kept)
        Merge(merged, start, product.a, product.b, product.scale).write()
        return merged

    def _check(self, name: str, whole: torch.Tensor | None, adapted: bool) -> None:
        """Check whether these weights fit to the base's tensor of this name."""
        shape, dtype = self._kinds[name]
        if whole is not None:
            check_whole(name, whole, shape)
        if adapted or (whole is not None and whole.dtype in FLOATS):
            check_dtype(name, dtype)

    def _checked(self, whole: Mapping[str, torch.Tensor]) -> Tensors:
        for name, tensor in whole.items():
            self._check(name, tensor, adapted=False)
            yield name, tensor
