"""WeGeFT for a whole model: owns phi and psi and defines how peft saves and loads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn
from transformers.pytorch_utils import Conv1D

from evoswarm.experts.wegeft.config import WeGeFTConfig
from evoswarm.experts.wegeft.layer import WeGeFTLinear

BANKS = ("wegeft_phi", "wegeft_psi")
_NO_DOT = "/"
"""Replaces dots in parameter names, where torch does not allow them."""


class WeGeFTModel(BaseTuner):
    """Fine-tuning with updates generated from the frozen weights: dW = s W phi^T psi.

    phi starts at zero, psi like the weight of `nn.Linear` (Kaiming uniform, a = sqrt 5). By default, all layers share
    one pair (phi, psi) per module type, e.g. one for all q_proj. Tensor names in a saved adapter:
    `base_model.wegeft_phi.q_proj`, or with `shared=False` `base_model.wegeft_phi.model.layers.0.self_attn.q_proj`.

    Source: WeGeFT (arXiv 2312.00700).
    """

    uses_shared_state = True
    prefix = "wegeft_"
    tuner_layer_cls = WeGeFTLinear
    target_module_mapping: dict[str, list[str]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: WeGeFTConfig, adapter_name: str) -> None:
        self.wegeft_phi, self.wegeft_psi = nn.ModuleDict(), nn.ModuleDict()

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        before = [(parameter, parameter.requires_grad) for parameter in self._bank_parameters()]
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        for parameter, requires_grad in before:  # adding an adapter does not change the others
            parameter.requires_grad = requires_grad

    def _create_and_replace(
        self,
        wegeft_config: WeGeFTConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        layer: Any = target
        if not isinstance(target, WeGeFTLinear):
            if not isinstance(target, nn.Linear | Conv1D) or type(target).__module__.startswith("bitsandbytes"):
                raise ValueError(
                    f"WeGeFT supports torch.nn.Linear and Conv1D, but {current_key} is {type(target).__name__}; "
                    "remove it from target_modules"
                )
            layer = WeGeFTLinear(target, (self.wegeft_phi, self.wegeft_psi))
        wegeft_config.fan_in_fan_out = layer.fan_in_fan_out
        key = current_key.rpartition(".")[2] if wegeft_config.shared else current_key.replace(".", _NO_DOT)
        self._make_pair(wegeft_config, adapter_name, key, layer)
        layer.update_layer(adapter_name, key, wegeft_config)
        if layer is not target:
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)
            self._replace_module(parent, target_name, layer, target)

    def _make_pair(self, config: WeGeFTConfig, adapter_name: str, key: str, layer: Any) -> None:
        for name in BANKS:
            bank = getattr(self, name)
            if adapter_name not in bank:
                bank[adapter_name] = nn.ParameterDict()
            known = bank[adapter_name]
            if key not in known:
                weight = layer.get_base_layer().weight
                known[key] = nn.Parameter(weight.new_empty(config.r, layer.in_features))
                if name == "wegeft_phi" and config.init_weights:
                    nn.init.zeros_(known[key])
                else:
                    nn.init.kaiming_uniform_(known[key], a=math.sqrt(5))
            elif known[key].shape[1] != layer.in_features:
                sizes = f"{known[key].shape[1]} and {layer.in_features}"
                raise ValueError(f"modules named {key} have different input sizes, {sizes}; set shared=False")

    def _bank_parameters(self) -> list[nn.Parameter]:
        return [parameter for name in BANKS if hasattr(self, name) for parameter in getattr(self, name).parameters()]

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        self._require_grad(self.active_adapters, not inference_mode)

    def _require_grad(self, active: Sequence[str], wanted: bool) -> None:
        """Enable gradients only for the active adapters, and only if `wanted`."""
        for name in BANKS:
            for adapter, pairs in getattr(self, name).items():
                pairs.requires_grad_(wanted and adapter in active)

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        super()._enable_adapter_layers(enabled)
        self._require_grad(self.active_adapters, enabled)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        super().set_requires_grad(adapter_names, requires_grad)
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        for name in BANKS:
            for adapter in names:
                getattr(self, name)[adapter].requires_grad_(requires_grad)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if autocast_adapter_dtype:
            for name in BANKS:
                for parameter in getattr(self, name)[adapter_name].values():
                    if parameter.dtype in (torch.float16, torch.bfloat16):
                        parameter.data = parameter.data.to(torch.float32)

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        for name in BANKS:
            del getattr(self, name)[adapter_name]
        self._require_grad(self.active_adapters, True)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        found = {}
        for name in BANKS:
            start = f"base_model.{name}.{adapter_name}."
            for key, tensor in state_dict.items():
                if key.startswith(start):
                    found[f"base_model.{name}.{key.removeprefix(start).replace(_NO_DOT, '.')}"] = tensor
        return found

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        if key.startswith(tuple(f"base_model.{name}." for name in BANKS)):
            return key
        return super()._remove_adapter_name_from_key(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        renamed = {}
        for key, tensor in state_dict.items():
            for name in BANKS:
                start = f"base_model.{name}."
                if key.startswith(start):
                    key = f"{start}{adapter_name}.{key.removeprefix(start).replace('.', _NO_DOT)}"
                    break
            renamed[key] = tensor
        return renamed
