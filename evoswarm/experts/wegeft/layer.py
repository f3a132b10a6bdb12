"""A linear layer with an update generated from its frozen weight."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.other import transpose
from torch import nn
from torch.nn import functional as F

from evoswarm.experts.wegeft.config import WeGeFTConfig

Banks = tuple[nn.ModuleDict, nn.ModuleDict]


class WeGeFTLinear(nn.Module, BaseTunerLayer):
    """y = W x + s (W phi^T) (psi x), with W [out, in] frozen, phi and psi [r, in] trained, s = alpha / r.

    The model owns phi and psi, because layers share them. A layer stores the key of its pair.

    Source: WeGeFT (arXiv 2312.00700), dW = s W phi^T psi.
    """

    # Attributes that torch's Module and peft's class leave untyped.
    base_layer: Any
    _banks: Any
    disable_adapters: Any
    active_adapters: Any
    merged: Any
    get_base_layer: Any
    set_adapter: Any
    _cast_input_dtype: Any

    adapter_layer_names = ("wegeft_dropout",)
    other_param_names = ("wegeft_scaling", "wegeft_key")

    def __init__(self, base_layer: Any, banks: Banks) -> None:
        """The layer is `nn.Linear`, or transformers' `Conv1D`, whose weight is [in, out].

        The banks map adapter name to key to phi, and to psi.
        """
        super().__init__()
        self.base_layer = base_layer
        self.wegeft_dropout = nn.ModuleDict()
        self.wegeft_scaling: dict[str, float] = {}
        self.wegeft_key: dict[str, str] = {}
        self.fan_in_fan_out = not isinstance(base_layer, nn.Linear)
        self._banks = banks  # a tuple, so that torch does not register them as submodules
        self._original: torch.Tensor | None = None
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        rows, columns = base_layer.weight.shape
        self.in_features, self.out_features = (rows, columns) if self.fan_in_fan_out else (columns, rows)

    def update_layer(self, adapter_name: str, key: str, config: WeGeFTConfig) -> None:
        """Add an adapter; its phi and psi are in the banks under `key`."""
        self.wegeft_key[adapter_name] = key
        self.wegeft_scaling[adapter_name] = config.wegeft_alpha / config.r
        self.wegeft_dropout[adapter_name] = nn.Dropout(config.wegeft_dropout)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def phi_psi(self, adapter_name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """phi and psi [r, in] of an adapter, on the weight's device."""
        phi, psi = (bank[adapter_name][self.wegeft_key[adapter_name]] for bank in self._banks)
        device = self.get_base_layer().weight.device
        return phi.to(device), psi.to(device)

    def lora_pair(self, adapter_name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The equivalent LoRA pair with scaling 1: A = psi [r, in], B = s W phi^T [out, r]."""
        phi, psi = self.phi_psi(adapter_name)
        return psi, self.wegeft_scaling[adapter_name] * F.linear(self._weight().to(phi.dtype), phi)

    def get_delta_weight(self, adapter_name: str) -> torch.Tensor:
        """s W phi^T psi in the layout of the base weight."""
        a, b = self.lora_pair(adapter_name)
        return transpose(b @ a, self.fan_in_fan_out)

    def _weight(self) -> torch.Tensor:
        """W [out, in] before any merge."""
        weight = self.get_base_layer().weight if self._original is None else self._original
        return transpose(weight, self.fan_in_fan_out)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merge adapters into the base weight. Keeps the original weight, because updates are generated from it.

        Raises:
            ValueError: with `safe_merge`, if the merged weight is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.wegeft_key]
        if not names:
            return
        base = self.get_base_layer()
        original = base.weight.data if self._original is None else self._original
        merged = base.weight.data + sum(self.get_delta_weight(name) for name in names)
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"NaNs detected in the merged weights. The adapter {names} seems to be broken")
        self._original = original
        base.weight.data = merged.to(original.dtype)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Restore the exact original weight."""
        if self._original is not None:
            self.get_base_layer().weight.data, self._original = self._original, None
        self.merged_adapters.clear()

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        dtype = result.dtype
        for name in self.active_adapters:
            if name in self.wegeft_key:
                phi, psi = self.phi_psi(name)
                generated = F.linear(self.wegeft_dropout[name](self._weight().to(phi.dtype)), phi)
                low = F.linear(self._cast_input_dtype(x, psi.dtype), psi)
                result = result + self.wegeft_scaling[name] * F.linear(low, generated)
        return result.to(dtype)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def __repr__(self) -> str:
        return "wegeft." + super().__repr__()
