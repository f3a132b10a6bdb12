"""Installs a particle's weights into a torch model, in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from evoswarm.engine.merge import FLOATS, Merge, check_dtype, merged_shape
from evoswarm.engine.pristine import Place, Pristine
from evoswarm.errors import UserError
from evoswarm.weights.device import to_torch
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling

_HEAD = "lm_head.weight"
Pair = LoraPair[torch.Tensor]


class Installer:
    """Writes merged weights into a model in place.

    Each parameter is written once per install, from its pristine copy. The base comes back bit for bit, and an install
    never depends on the one before. Memory: one copy of the adapted parameters.

    An adapter has the same effect as unmerged: if embedding and head share a tensor and the adapter changes one of
    them, the two are separated (unless it was made with `ensure_weight_tying`).
    """

    def __init__(self, model: nn.Module, adapter: Mapping[str, Any] | None, *, pristine: Place = "auto") -> None:
        """
        Args:
            model: the base model.
            adapter: adapter_config.json, or None if weights are full checkpoints.
            pristine: where to keep pristine copies of a GPU's parameters.
        """
        self._model, self._adapter = model, adapter
        self._targets = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        self.pristine = Pristine(pristine)
        self._written: set[str] = set()

    @property
    def adapted(self) -> set[str]:
        """Names of the parameters that the last install wrote."""
        return set(self._written)

    @torch.no_grad()
    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        pairs, whole = self._parts(weights)
        self._check(pairs, whole)
        names = sorted({*pairs, *whole})
        self._prepare(names)
        for name in sorted(self._written.difference(names)):
            self.pristine.restore(self._targets[name])
        self._written |= set(names)
        for name in names:
            self._write(name, whole.get(name), pairs.get(name))
        self._written = set(names)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the caller may overwrite its weights from here on

    def wrong_weights(self, weights: Mapping[str, np.ndarray]) -> str | None:
        """The first adapted parameter that does not hold the merge with these weights, which were installed."""
        pairs, whole = self._parts(weights)
        for name, pair in pairs.items():
            if not self._merge(name, whole.get(name), pair).is_written():
                return name
        return None

    def _parts(self, weights: Mapping[str, np.ndarray] | None) -> tuple[dict[str, Pair], dict[str, torch.Tensor]]:
        """Adapted and replaced parameters."""
        tensors = {name: to_torch(array, read_only=True) for name, array in (weights or {}).items()}
        if self._adapter is None:
            return {}, self._without_tied_head(tensors)
        return {f"{m}.weight": pair for m, pair in lora_modules(tensors).items()}, full_tensors(tensors)

    def _write(self, name: str, whole: torch.Tensor | None, pair: Pair | None) -> None:
        """Write one parameter. peft saves an adapted embedding both whole and with its pair: they are added."""
        if pair is not None:
            self._merge(name, whole, pair).write()
        else:
            target = self._targets[name]
            target.copy_(self.pristine[target] if whole is None else whole, non_blocking=True)

    def _merge(self, name: str, whole: torch.Tensor | None, pair: Pair) -> Merge:
        target, scale = self._targets[name], scaling(self._adapter or {}, name.rpartition(".")[0])
        start = self.pristine[target] if whole is None else whole
        return Merge(target, start, pair.a, pair.b, scale, self._transposed(name))

    def _without_tied_head(self, checkpoint: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Drop a tied head that the file has and the model does not register."""
        return {name: tensor for name, tensor in checkpoint.items() if name in self._targets or name != _HEAD}

    def _check(self, pairs: Mapping[str, Pair], whole: Mapping[str, torch.Tensor]) -> None:
        for name, shape in [*self._merged_shapes(pairs), *((name, tensor.shape) for name, tensor in whole.items())]:
            if name not in self._targets:
                raise UserError(f"the experts adapt {name}, which the base model does not have; check `model`")
            target = self._targets[name]
            if name in pairs or whole[name].dtype in FLOATS:
                check_dtype(name, target.dtype)
            if shape != target.shape:
                have = list(target.shape)
                raise UserError(f"the experts' {name} is {list(shape)}, the base model's {have}; check `model`")

    def _merged_shapes(self, pairs: Mapping[str, Pair]) -> Iterator[tuple[str, torch.Size]]:
        for name, pair in pairs.items():
            transposed = name in self._targets and self._transposed(name)
            yield name, merged_shape(name, pair, transposed=transposed)

    def _transposed(self, name: str) -> bool:
        """Whether the parameter is [in, out]: embeddings, and the layers of GPT-2 (peft's `fan_in_fan_out`)."""
        return isinstance(self._model.get_submodule(name.rpartition(".")[0]), nn.Embedding | Conv1D)

    def _prepare(self, names: list[str]) -> None:
        """Keep pristine copies, and separate shared parameters that an adapter changes."""
        if self._adapter is not None and not self._adapter.get("ensure_weight_tying"):
            for name in names:
                self._separate(name)
        self.pristine.keep([self._targets[name] for name in names])

    def _separate(self, name: str) -> None:
        target = self._targets[name]
        if any(other is target for key, other in self._targets.items() if key != name):
            owner, _, attribute = name.rpartition(".")
            self._targets[name] = nn.Parameter(target.detach().clone(), requires_grad=False)
            setattr(self._model.get_submodule(owner), attribute, self._targets[name])
