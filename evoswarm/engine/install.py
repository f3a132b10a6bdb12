"""Installs a particle's weights into a torch model, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from evoswarm.engine.merge import FLOATS, Merge, check_dtype
from evoswarm.engine.pristine import Place, Pristine
from evoswarm.engine.targets import Product, Target, check_whole, read_targets
from evoswarm.weights.device import LazyTensors, to_torch
from evoswarm.weights.model_names import Location, ModelNames


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
        self._written: set[Location] = set()

    @property
    def adapted(self) -> set[str]:
        """Names of the parameters that the last install wrote."""
        return {place.tensor for place in self._written}

    @torch.no_grad()
    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        targets = self._read(weights)
        self._prepare({target.location.tensor for target in targets})
        places = {target.location for target in targets}
        for place in sorted(self._written - places, key=str):
            held, start = self._views(place)
            held.copy_(start, non_blocking=True)
        self._written |= places
        for target in targets:
            whole = target.whole()
            self._check(target, whole)
            self._write(target, whole)
            del whole  # free it before the next one is made
        self._written = places
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the caller may overwrite its weights from here on

    def wrong_weights(self, weights: Mapping[str, np.ndarray]) -> str | None:
        """The first adapted parameter that does not hold the merge with these weights, which were installed."""
        for target in self._read(weights):
            if target.product is not None and not self._merge(target, target.product, target.whole()).is_written():
                return target.name
        return None

    def _read(self, weights: Mapping[str, np.ndarray] | None) -> list[Target]:
        arrays = weights or {}
        return read_targets(self._names, self._adapter, LazyTensors(arrays, list(arrays))).require()

    def _check(self, target: Target, whole: torch.Tensor | None) -> None:
        if whole is not None:
            check_whole(target.name, whole, self._names.shape(target.location))
        if target.product is not None or (whole is not None and whole.dtype in FLOATS):
            check_dtype(target.name, self._targets[target.location.tensor].dtype)

    def _views(self, place: Location) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model holds there, and what the base has."""
        held = self._targets[place.tensor]
        return place.of(held), place.of(self.pristine[held])

    def _write(self, target: Target, whole: torch.Tensor | None) -> None:
        if target.product is not None:
            self._merge(target, target.product, whole).write()
        elif whole is not None:
            self._views(target.location)[0].copy_(whole, non_blocking=True)

    def _merge(self, target: Target, product: Product, whole: torch.Tensor | None) -> Merge:
        held, start = self._views(target.location)
        return Merge(held, start if whole is None else whole, product.a, product.b, product.scale)

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
