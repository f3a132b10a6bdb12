"""Converts WeGeFT to LoRA: a particle is phi and psi, and the engine gets the generated LoRA.

    A = psi,  B = s W phi^T,  s = wegeft_alpha / r        W [out, in] from the base model's files

Source: WeGeFT (arXiv 2312.00700). The peft tuner that trains these adapters is in evoswarm.experts.wegeft.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from evoswarm.errors import UserError
from evoswarm.weights.base import BaseTensors
from evoswarm.weights.device import to_torch
from evoswarm.weights.expert import checkpoint_files
from evoswarm.weights.hub import model_folder
from evoswarm.weights.kinds import PHI, PSI

_FIELDS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save")


class LoraGenerator:
    """Generates LoRA from phi and psi. Reads base weights from disk as needed."""

    def __init__(self, model: str, config: Mapping[str, Any]) -> None:
        """`config` is adapter_config.json of the WeGeFT adapters.

        Raises:
            UserError: the base model's files are missing.
        """
        self._config = config
        base_files(model)
        base = BaseTensors(model)
        found = {module: base.find(f"{module}.weight") for module in base.modules}
        self._weights = {module: stored for module, stored in found.items() if stored is not None}

    def keys(self) -> dict[str, str]:
        """Name of each adapted module in the base model to the key of its phi and psi.

        Raises:
            UserError: the base model has none of the modules.
        """
        from peft.tuners.tuners_utils import check_target_module_exists

        chosen = SimpleNamespace(target_parameters=None, **{field: self._config.get(field) for field in _FIELDS})
        found = [module for module in self._weights if check_target_module_exists(chosen, module) is True]
        if not found:
            raise UserError("the experts adapt modules that the base model does not have; check `model`")
        shared = self._config.get("shared", True)
        return {module: module.rpartition(".")[2] if shared else module for module in sorted(found)}

    @torch.inference_mode()
    def tensors(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The LoRA tensors in phi's data type, with the names of a saved adapter.

        Raises:
            UserError: a pair is missing or has the wrong width.
        """
        result: dict[str, np.ndarray] = {}
        scale = float(self._config.get("wegeft_alpha", 128)) / int(self._config.get("r", 64))
        for module, key in self.keys().items():
            try:
                phi, psi = weights[PHI + key], weights[PSI + key]
            except KeyError:
                raise UserError(f"the experts have no phi and psi for {module}; check `model`") from None
            base = self._weight(module)
            if base.shape[1] != phi.shape[1]:
                raise UserError(f"the experts' {key} has width {phi.shape[1]}, {module} has {base.shape[1]}")
            b = scale * (base @ to_torch(phi).to(torch.float32).T)
            start = f"base_model.model.{module}.lora_"
            result[f"{start}A.weight"] = psi
            result[f"{start}B.weight"] = b.numpy().astype(phi.dtype)
        return result

    def lora_config(self) -> dict[str, Any]:
        """adapter_config.json of the generated LoRA."""
        rank = int(self._config.get("r", 64))
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": rank,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": bool(self._config.get("fan_in_fan_out")),
            "target_modules": sorted({module.rpartition(".")[2] for module in self.keys()}),
            "base_model_name_or_path": self._config.get("base_model_name_or_path"),
            "inference_mode": True,
        }

    def _weight(self, module: str) -> torch.Tensor:
        """W [out, in] in fp32."""
        stored = self._weights[module]
        weight = to_torch(stored.flat().reshape(stored.spec.shape), read_only=True)
        weight = weight.to(torch.float32)
        return weight.T if self._config.get("fan_in_fan_out") else weight


def base_files(model: str) -> list[Path]:
    """The safetensors files of a base model, in a folder or in the hub's cache.

    Raises:
        UserError: there are none.
    """
    files = checkpoint_files(Path(model_folder(model)))
    if not files:
        raise UserError(f"{model}: has no safetensors files, which WeGeFT needs to generate its weights")
    return files
