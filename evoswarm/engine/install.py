"""Putting a particle's weights into a torch model whose base weights are kept as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from evoswarm.errors import UserError
from evoswarm.weights.device import to_torch
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling


class Installer:
    """Writes merged weights into a model in place.

    Every parameter that was ever written has a pristine copy on the model's device, so the base comes back bit for bit
    and no install ever starts from another one's rounding. Memory: one copy of the adapted parameters.
    """

    def __init__(self, model: nn.Module, adapter: Mapping[str, Any] | None) -> None:
        """
        Args:
            model: the base model.
            adapter: adapter_config.json, or None where weights are full checkpoints.
        """
        self._adapter = adapter
        self._targets = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        self._pristine: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        tensors = {name: to_torch(array) for name, array in (weights or {}).items()}
        pairs = lora_modules(tensors) if self._adapter is not None else {}
        whole = full_tensors(tensors) if self._adapter is not None else tensors
        self._check([f"{module}.weight" for module in pairs] + list(whole))
        self._restore()
        for module, pair in pairs.items():
            self._merge(module, pair)
        for name, tensor in whole.items():
            if name in self._targets:
                self._keep(name)
                self._targets[name].copy_(tensor)

    def _check(self, names: list[str]) -> None:
        # Checkpoints may hold a tied head that the model does not register as a parameter of its own.
        unknown = [name for name in names if name not in self._targets and name != "lm_head.weight"]
        if unknown:
            raise UserError(f"the experts adapt {unknown[0]}, which the base model does not have; check `model`")

    def _keep(self, name: str) -> torch.Tensor:
        if name not in self._pristine:
            self._pristine[name] = self._targets[name].detach().clone()
        return self._pristine[name]

    def _restore(self) -> None:
        for name, tensor in self._pristine.items():
            self._targets[name].copy_(tensor)

    def _merge(self, module: str, pair: LoraPair[torch.Tensor]) -> None:
        assert self._adapter is not None
        name = f"{module}.weight"
        target, pristine = self._targets[name], self._keep(name)
        delta = pair.b.to(target.device, torch.float32) @ pair.a.to(target.device, torch.float32)
        if pair.embedding or self._adapter.get("fan_in_fan_out"):
            delta = delta.T
        target.copy_(pristine.to(torch.float32).add_(delta, alpha=scaling(self._adapter, module)))
