"""Where the tensors of a pool go in a model: one rule for checks, engines and merging.

A tensor goes where transformers puts a checkpoint's tensor of this name: with or without the prefix of the backbone,
renamed since the model was published, or as one expert's part of a fused tensor. The same holds for adapters, whose
names are those of the modules of the transformers version that trained them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)
from transformers.pytorch_utils import Conv1D

from evoswarm.weights.parameters import by_core, core_name

_CACHES = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")
"""Tensors of earlier versions that transformers leaves out for every model."""


@dataclass(frozen=True)
class Location:
    """One of the model's tensors, or the part of a fused one that belongs to one expert of a mixture of experts.

    Attributes:
        tensor: name in the model's state dict.
        expert: index of the expert; None for a whole tensor.
        part: index of the part, and the number of equal parts that an expert's tensor is concatenated from.
    """

    tensor: str
    expert: int | None = None
    part: tuple[int, int] = (0, 1)

    def of(self, tensor: Any) -> Any:
        """The view of a tensor, or of an array, with the shape of the model's."""
        if self.expert is None:
            return tensor
        index, count = self.part
        rows = tensor.shape[1] // count
        return tensor[self.expert, index * rows : (index + 1) * rows]


class ModelNames:
    """The names of a model, which may be on the meta device."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.tensors: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
        """All tensors of the model by name; a shared one has several names."""
        rules = get_model_conversion_mapping(model) if isinstance(model, PreTrainedModel) else []
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._prefix = model.base_model_prefix if isinstance(model, PreTrainedModel) else None
        self._found: dict[str, Location | None] = {}

    def find(self, name: str) -> Location | None:
        """Where a tensor of a pool or of a checkpoint goes; None if the model has no place for it."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Location | None:
        renamed, pattern = self._renamed(name, self._renamings, self._converters)
        if renamed not in self.tensors:
            renamed, pattern = self._renamed(name, [], [])
        if renamed not in self.tensors:
            return None
        return Location(renamed) if pattern is None else self._fused(name, renamed, pattern)

    def _renamed(
        self, name: str, renamings: list[WeightRenaming], converters: list[WeightConverter]
    ) -> tuple[str, str | None]:
        renamed: tuple[str, str | None] = rename_source_key(name, renamings, converters, self._prefix, self.tensors)
        return renamed

    def _fused(self, name: str, renamed: str, pattern: str) -> Location | None:
        """The part of a fused tensor. Other conversions than stacking experts are not parts."""
        rule = next(rule for rule in self._converters if pattern in rule.source_patterns)
        number = re.search(pattern.replace("*", r"(\d+)"), name)
        kinds = [type(operation) for operation in rule.operations]
        stacks = kinds in ([MergeModulelist], [MergeModulelist, Concatenate])
        if number is None or not stacks or any(o.dim != i for i, o in enumerate(rule.operations)):
            return None
        expert = int(number[1])
        if expert >= len(self.tensors[renamed]):
            return None
        return Location(renamed, expert, (rule.source_patterns.index(pattern), len(rule.source_patterns)))

    def own(self, name: str) -> str:
        """The model's own name of a tensor. A part of a fused one, and what it has no place for, keep their names.

        Experts of a text model inside of one that reads images, and the reverse, differ in the backbone's prefix alone.
        """
        location = self.find(name)
        if location is None:
            same = self._by_core.get(core_name(name), [])
            return same[0] if len(same) == 1 else name
        return location.tensor if location.expert is None else name

    @cached_property
    def modules(self) -> frozenset[str]:
        """Names of all modules."""
        return frozenset(name for name, _ in self._model.named_modules())

    @cached_property
    def _by_core(self) -> dict[str, list[str]]:
        return by_core(self.tensors)

    def shape(self, location: Location) -> torch.Size:
        """The shape of a tensor of the model, or of a part."""
        shape: torch.Size = location.of(self.tensors[location.tensor]).shape
        return shape

    def missing(self, locations: Iterable[Location]) -> list[str]:
        """Tensors that a complete checkpoint needs and that are at none of these locations."""
        parts: dict[str, set[Location]] = {}
        for location in locations:
            parts.setdefault(location.tensor, set()).add(location)
        filled = {id(self.tensors[name]) for name, found in parts.items() if self.complete(found)}
        return sorted(n for n, tensor in self.tensors.items() if id(tensor) not in filled and not self._optional(n))

    def complete(self, parts: Collection[Location]) -> bool:
        """Whether parts of one of the model's tensors are all of it."""
        part = next(iter(parts))
        return part.expert is None or len(parts) == self.tensors[part.tensor].shape[0] * part.part[1]

    def _optional(self, name: str) -> bool:
        patterns = self._model._keys_to_ignore_on_load_missing if isinstance(self._model, PreTrainedModel) else None
        return any(re.search(pattern, name) for pattern in patterns or ())

    def shared(self, location: Location) -> bool:
        """Whether the tensor has several names, as embedding and head may share one."""
        return len(self.names_of(location.tensor)) > 1

    def names_of(self, tensor: str) -> list[str]:
        """All names of one of the model's tensors, itself first."""
        held = self.tensors[tensor]
        return [tensor, *(name for name, other in self.tensors.items() if other is held and name != tensor)]

    def transposed(self, location: Location) -> bool:
        """Whether the tensor is [in, out]: embeddings, and the layers of GPT-2."""
        return isinstance(self._model.get_submodule(location.tensor.rpartition(".")[0]), nn.Embedding | Conv1D)

    def ignores(self, name: str) -> bool:
        """Whether transformers leaves a checkpoint's tensor out: the model has no place for it and expects that some
        files have it, such as caches of earlier versions."""
        if self.find(name) is not None or not isinstance(self._model, PreTrainedModel):
            return False
        patterns = [*(self._model._keys_to_ignore_on_load_unexpected or ()), *_CACHES]
        return any(re.search(pattern, name) for pattern in patterns)
