"""Installs a particle's weights into a torch model, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from evoswarm.engine.merge import FLOATS, Merge, check_dtype, merged_shape
from evoswarm.engine.names import Location, ModelNames
from evoswarm.engine.pristine import Place, Pristine
from evoswarm.errors import UserError
from evoswarm.weights.device import LazyTensors, to_torch
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling

Pair = LoraPair[torch.Tensor]


class Installer:
    """Writes merged weights into a model in place.

    Each parameter is written once per install, from its pristine values. The base comes back bit for bit, and an
    install never depends on the one before. Memory: one copy of the adapted parameters on a GPU. On a CPU, and for
    checkpoints, the pristine values are views of the base's files, and one tensor of a checkpoint is held at a time.

    An adapter has the same effect as unmerged: if embedding and head share a tensor and the adapter changes one of
    them, the two are separated (unless it was made with `ensure_weight_tying`).
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Mapping[str, Any] | None,
        *,
        pristine: Place = "auto",
        saved: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """
        Args:
            model: the base model.
            adapter: adapter_config.json, or None if weights are full checkpoints.
            pristine: where to keep pristine copies of a GPU's parameters.
            saved: tensors of the base's files by name, as lazy views; None: copies are kept.
        """
        self._model, self._adapter = model, adapter
        self._names = ModelNames(model)
        self._targets = dict(self._names.tensors)
        self.pristine, self._saved = Pristine(pristine), self._by_location(saved or {})
        self._written: dict[str, Location] = {}

    @property
    def adapted(self) -> set[str]:
        """Names of the parameters that the last install wrote."""
        return {location.tensor for location in self._written.values()}

    @torch.no_grad()
    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        pairs, whole = self._parts(weights)
        places = {name: self._location(name) for name in sorted({*pairs, *whole})}
        self._prepare({location.tensor for location in places.values()})
        for name in sorted(self._written.keys() - places):
            target, start = self._views(self._written[name])
            target.copy_(start, non_blocking=True)
        self._written |= places
        for name, location in places.items():
            replacement, pair = whole.get(name), pairs.get(name)
            self._check(name, location, replacement, pair)
            self._write(name, replacement, pair)
            del replacement  # free it before the next one is made
        self._written = places
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the caller may overwrite its weights from here on

    def wrong_weights(self, weights: Mapping[str, np.ndarray]) -> str | None:
        """The first adapted parameter that does not hold the merge with these weights, which were installed."""
        pairs, whole = self._parts(weights)
        for name, pair in pairs.items():
            if not self._merge(name, whole.get(name), pair).is_written():
                return name
        return None

    def _parts(self, weights: Mapping[str, np.ndarray] | None) -> tuple[dict[str, Pair], Mapping[str, torch.Tensor]]:
        """Adapted and replaced parameters, by the names that the experts give them."""
        if self._adapter is None:
            return {}, LazyTensors(weights or {}, [name for name in weights or {} if not self._names.ignores(name)])
        tensors = {name: to_torch(array, read_only=True) for name, array in (weights or {}).items()}
        return {f"{m}.weight": pair for m, pair in lora_modules(tensors).items()}, full_tensors(tensors)

    def _views(self, location: Location) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model holds there, and what the base has."""
        target = self._targets[location.tensor]
        return location.of(target), location.of(self.pristine[target])

    def _write(self, name: str, whole: torch.Tensor | None, pair: Pair | None) -> None:
        """Write one parameter. peft saves an adapted embedding both whole and with its pair: they are added."""
        if pair is not None:
            self._merge(name, whole, pair).write()
        else:
            target, start = self._views(self._written[name])
            target.copy_(start if whole is None else whole, non_blocking=True)

    def _merge(self, name: str, whole: torch.Tensor | None, pair: Pair) -> Merge:
        location, scale = self._written[name], scaling(self._adapter or {}, name.rpartition(".")[0])
        target, start = self._views(location)
        return Merge(target, start if whole is None else whole, pair.a, pair.b, scale, self._names.transposed(location))

    def _location(self, name: str) -> Location:
        location = self._names.find(name)
        if location is None:
            raise UserError(f"the experts adapt {name}, which the base model does not have; check `model`")
        return location

    def _check(self, name: str, location: Location, whole: torch.Tensor | None, pair: Pair | None) -> None:
        have = self._names.shape(location)
        shapes = [] if whole is None else [whole.shape]
        if pair is not None:
            shapes.append(merged_shape(name, pair, transposed=self._names.transposed(location)))
        if pair is not None or (whole is not None and whole.dtype in FLOATS):
            check_dtype(name, self._targets[location.tensor].dtype)
        for shape in shapes:
            if shape != have:
                raise UserError(f"the experts' {name} is {list(shape)}, the base model's {list(have)}; check `model`")

    def _prepare(self, names: set[str]) -> None:
        """Keep pristine values, and separate shared parameters that an adapter changes."""
        if self._adapter is not None and not self._adapter.get("ensure_weight_tying"):
            for name in sorted(names):
                self._separate(name)
        targets = {name: self._targets[name] for name in sorted(names)}
        for name, target in targets.items():
            # A GPU merges from its own or from pinned memory, which is faster.
            if name in self._saved and not self.pristine.has(target) and not (self._adapter and target.is_cuda):
                self.pristine.keep_view(target, to_torch(self._saved[name], read_only=True))
        self.pristine.keep(list(targets.values()))

    def _by_location(self, saved: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Saved tensors by their name in the model, without the parts of fused ones."""
        found = {name: self._names.find(name) for name in saved}
        return {place.tensor: saved[name] for name, place in found.items() if place and place.expert is None}

    def _separate(self, name: str) -> None:
        target = self._targets[name]
        if any(other is target for key, other in self._targets.items() if key != name):
            owner, _, attribute = name.rpartition(".")
            self._targets[name] = nn.Parameter(target.detach().clone(), requires_grad=False)
            setattr(self._model.get_submodule(owner), attribute, self._targets[name])
