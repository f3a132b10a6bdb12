"""Putting a particle's weights into a torch model whose base weights are kept as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from evoswarm.errors import UserError
from evoswarm.weights.device import to_torch
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling

_HEAD = "lm_head.weight"
Pair = LoraPair[torch.Tensor]


class Installer:
    """Writes merged weights into a model in place.

    Every parameter that was ever written has a pristine copy on the model's device, so the base comes back bit for bit
    and no install ever starts from another one's rounding. Memory: one copy of the adapted parameters.

    An adapter acts as it does unmerged: where embedding and head share a tensor and it adapts one of them, the two are
    separated (unless it was made with `ensure_weight_tying`).
    """

    def __init__(self, model: nn.Module, adapter: Mapping[str, Any] | None) -> None:
        """
        Args:
            model: the base model.
            adapter: adapter_config.json, or None where weights are full checkpoints.
        """
        self._model, self._adapter = model, adapter
        self._targets = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        self._pristine: dict[str, torch.Tensor] = {}

    @property
    def adapted(self) -> set[str]:
        """Names of the parameters that were ever written."""
        return set(self._pristine)

    @torch.no_grad()
    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        tensors = {name: to_torch(array) for name, array in (weights or {}).items()}
        pairs = {f"{m}.weight": pair for m, pair in lora_modules(tensors).items()} if self._adapter is not None else {}
        whole = full_tensors(tensors) if self._adapter is not None else self._known(tensors)
        self._check(pairs, whole)
        self._restore()
        names = sorted({*pairs, *whole})
        for name in names:
            self._prepare(name)
        for name in names:
            # peft saves an adapted embedding whole and with its pair: the pair is added to the whole.
            start = whole.get(name, self._pristine[name])
            self._targets[name].copy_(self._merged(name, start, pairs[name]) if name in pairs else start)

    def _known(self, checkpoint: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Without a tied head that the file holds and the model does not register."""
        return {name: tensor for name, tensor in checkpoint.items() if name in self._targets or name != _HEAD}

    def _check(self, pairs: Mapping[str, Pair], whole: Mapping[str, torch.Tensor]) -> None:
        for name, shape in [*self._merged_shapes(pairs), *((name, tensor.shape) for name, tensor in whole.items())]:
            if name not in self._targets:
                raise UserError(f"the experts adapt {name}, which the base model does not have; check `model`")
            have = self._targets[name].shape
            if shape != have:
                raise UserError(f"the experts' {name} is {list(shape)}, the base model's {list(have)}; check `model`")

    def _merged_shapes(self, pairs: Mapping[str, Pair]) -> Iterator[tuple[str, torch.Size]]:
        for name, pair in pairs.items():
            if pair.a.ndim != 2 or pair.b.ndim != 2 or len(pair.a) != pair.b.shape[1]:
                shapes = f"A {list(pair.a.shape)} and B {list(pair.b.shape)}"
                raise UserError(f"the experts' {name} has {shapes}, which do not multiply; save the experts again")
            shape = torch.Size((len(pair.b), pair.a.shape[1]))
            yield name, torch.Size(reversed(shape)) if name in self._targets and self._transposed(name) else shape

    def _transposed(self, name: str) -> bool:
        """Whether the parameter is [in, out]: embeddings, and the layers of GPT-2 (peft's `fan_in_fan_out`)."""
        return isinstance(self._model.get_submodule(name.rpartition(".")[0]), nn.Embedding | Conv1D)

    def _prepare(self, name: str) -> None:
        """Keep a pristine copy of a parameter, and give it to one user alone where an adapter changes it."""
        if self._adapter is not None and not self._adapter.get("ensure_weight_tying"):
            self._separate(name)
        if name not in self._pristine:
            self._pristine[name] = self._targets[name].detach().clone()

    def _separate(self, name: str) -> None:
        target = self._targets[name]
        if any(other is target for key, other in self._targets.items() if key != name):
            owner, _, attribute = name.rpartition(".")
            self._targets[name] = nn.Parameter(target.detach().clone(), requires_grad=False)
            setattr(self._model.get_submodule(owner), attribute, self._targets[name])

    def _restore(self) -> None:
        for name, tensor in self._pristine.items():
            self._targets[name].copy_(tensor)

    def _merged(self, name: str, start: torch.Tensor, pair: Pair) -> torch.Tensor:
        assert self._adapter is not None
        device = self._targets[name].device
        delta = pair.b.to(device, torch.float32) @ pair.a.to(device, torch.float32)
        if self._transposed(name):
            delta = delta.T
        factor = scaling(self._adapter, name.rpartition(".")[0])
        return start.to(device, torch.float32, copy=True).add_(delta, alpha=factor)
