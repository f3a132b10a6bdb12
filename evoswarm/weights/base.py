"""The base model's own tensors: whole tensors of experts are differences from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert, checkpoint_files, open_expert, read_json
from evoswarm.weights.hub import cached_model, model_folder
from evoswarm.weights.loaded import loaded_model
from evoswarm.weights.parameters import are_plain, by_core, core_name, embedding_of, is_head
from evoswarm.weights.stored import Stored
from evoswarm.weights.tensorfile import TensorFile

if TYPE_CHECKING:
    from evoswarm.weights.model_names import Location, ModelNames

BASE = "base"
"""The base model's name as an expert in the pool."""


class BaseTensors:
    """Tensors of a base model by the names that experts give them. Opens the files when the first one is read.

    Files may have another name for a tensor than the model that transformers loads, or hold a part of it. The loaded
    model decides which tensors are the same.
    """

    def __init__(self, model: str) -> None:
        """`model` is a folder, or a name on the hub."""
        self.model = model

    def flat(self, name: str) -> np.ndarray:
        """A tensor as a read-only array [numel].

        Raises:
            UserError: the base model has no such tensor, or is not here.
        """
        if (tensor := self.find(name)) is not None:
            return tensor.flat()
        if (array := self._of_fused(name)) is not None:
            return array.reshape(-1)
        raise UserError(f"the experts hold {name} whole, but the base model {self.model} has none; check `model`")

    def find(self, name: str) -> Stored | None:
        """A tensor of the files by the name that an expert gives it; None if they have none, or have it in parts.

        Raises:
            UserError: the base model is not here.
        """
        if name in self._tensors:
            return self._tensors[name]
        if self._names is None:
            return self._alike(name)
        if (place := self._names.find(self._names.own(name))) is None:
            return None
        same = [replace(place, tensor=tensor) for tensor in self._names.names_of(place.tensor)]
        return next((self._places[other] for other in same if other in self._places), None)

    def own(self, name: str) -> str:
        """The name that the loaded model has for a tensor. What it does not have, and parts of it, keep their names."""
        if self._names is not None:
            return self._names.own(name)
        same = [] if name in self.stored else self._by_core.get(core_name(name), [])
        return same[0] if len(same) == 1 else name

    @property
    def modules(self) -> Iterable[str]:
        """Names of the modules, for models that cannot be built of those with weights."""
        return self._names.modules if self._names else {n.removesuffix(".weight") for n in self._tensors}

    @property
    def is_here(self) -> bool:
        """Whether the files can be read."""
        try:
            return bool(self._tensors)
        except UserError:
            return False

    @cached_property
    def expert(self) -> Expert | None:
        """The base model as a checkpoint, if its weights are on this machine and can be read."""
        folder = cached_model(self.model)
        try:
            return open_expert(folder, name=BASE) if folder else None
        except UserError:
            return None

    @property
    def stored(self) -> Mapping[str, Stored]:
        """The tensors of the files that are on this machine by their names there."""
        return self.expert.stored if self.expert else {}

    @cached_property
    def _tensors(self) -> dict[str, Stored]:
        files = checkpoint_files(Path(model_folder(self.model)))
        if not files:
            raise UserError(
                f"{self.model}: has no safetensors files, which are needed to mix tensors that the experts hold whole"
            )
        return {name: Stored.of(file, name) for file in map(TensorFile, files) for name in file.specs}

    @cached_property
    def _names(self) -> ModelNames | None:
        """None if the files have the loaded model's names, or if it cannot be built."""
        folder = cached_model(self.model)
        try:
            config = read_json(folder / "config.json") if folder else {}
        except UserError:
            return None
        return None if are_plain(self.stored, config) else loaded_model(self.model)

    @cached_property
    def _places(self) -> dict[Location, Stored]:
        """The tensors of the files by their place in the loaded model."""
        found = {name: self._names.find(name) for name in self._tensors} if self._names else {}
        return {place: self._tensors[name] for name, place in found.items() if place is not None}

    @cached_property
    def _by_core(self) -> dict[str, list[str]]:
        return by_core(self.stored)

    def _of_fused(self, name: str) -> np.ndarray | None:
        """A tensor that the model has fused: a part of what the files have whole, or the whole of their parts."""
        names = self._names
        if names is None or (place := names.find(names.own(name))) is None:
            return None
        if place.expert is not None:
            whole = self._places.get(type(place)(place.tensor))
            return None if whole is None else np.ascontiguousarray(place.of(_array(whole)))
        parts = {other: tensor for other, tensor in self._places.items() if other.tensor == place.tensor}
        if not parts or not names.complete(parts):
            return None
        first = next(iter(parts.values()))
        result = np.empty(tuple(names.shape(place)), first.spec.numpy_dtype)
        for other, tensor in parts.items():
            other.of(result)[...] = _array(tensor)
        return result

    def _alike(self, name: str) -> Stored | None:
        """A tensor by its name alone, for models that cannot be built. A tied head is absent."""
        cores = {core_name(known): tensor for known, tensor in self._tensors.items()}
        embedding = embedding_of(self._tensors)
        tied = self._tensors[embedding] if embedding and is_head(name) else None
        return cores.get(core_name(name)) or next((t for n, t in cores.items() if is_head(name) and is_head(n)), tied)


def _array(stored: Stored) -> Any:
    return stored.flat().reshape(stored.spec.shape)
