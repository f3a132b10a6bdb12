"""Exact conversion of trained adapters to plain LoRA, with scaling 1: W + B A.

The factors come from the methods themselves, not from a decomposition, so that mixing experts preserves their shared
structure: MiSS and VeRA share A up to its scale; WeGeFT shares the weights that generate B.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.miss.layer import MissLayer
from peft.tuners.vera.layer import VeraLayer
from safetensors.torch import save_file

from evoswarm.experts.wegeft import WeGeFTLinear
from evoswarm.weights.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evoswarm.weights.lora_config import lora_config

Pair = tuple[torch.Tensor, torch.Tensor]
"""A [r, in] and B [out, r]; B includes the scaling."""
Factors = dict[str, Pair]
"""Module name to A and B."""


def _lora(layer: Any, adapter: str) -> Pair:
    return layer.lora_A[adapter].weight, layer.scaling[adapter] * layer.lora_B[adapter].weight


def _vera(layer: Any, adapter: str) -> Pair:
    a = layer.vera_lambda_d[adapter][:, None] * layer.vera_A[adapter][:, : layer.in_features]
    return a, layer.vera_lambda_b[adapter][:, None] * layer.vera_B[adapter][: layer.out_features]


def _miss(layer: Any, adapter: str) -> Pair:
    block = layer.miss_block[adapter]  # [r, out]: input i uses row i modulo r
    if layer.miss_fn == "mini":
        block = block.repeat(1, layer.out_features // block.shape[1])
    rank = block.shape[0]
    a = torch.eye(rank, dtype=block.dtype, device=block.device).repeat(1, -(-layer.in_features // rank))
    return a[:, : layer.in_features], block.T


LAYERS: dict[type[Any], Callable[[Any, str], Pair]] = {
    LoraLayer: _lora,
    MissLayer: _miss,
    VeraLayer: _vera,
    WeGeFTLinear: WeGeFTLinear.lora_pair,
}
"""Layers that can be converted: from a layer and the adapter's name to A and B. To add one, add one line here."""


@torch.no_grad()
def lora_factors(model: PeftModel, start: Factors | None = None) -> Factors:
    """The LoRA that is equivalent to the active adapter.

    `start` are the initial factors of methods that subtract them from the base weights (PiSSA, ...):
    W - B0 A0 + B A = W + [B, -B0] [A; A0].

    Raises:
        TypeError: the adapter uses another method.
    """
    factors = {}
    for name, layer in model.base_model.model.named_modules():
        convert = next((function for kind, function in LAYERS.items() if isinstance(layer, kind)), None)
        if convert is not None:
            a, b = (tensor.detach().clone() for tensor in convert(layer, model.active_adapter))
            if start is not None:
                a, b = torch.cat([a, start[name][0]]), torch.cat([b, -start[name][1]], dim=1)
            factors[name] = a, b
    if not factors:
        raise TypeError("the model has no LoRA, WeGeFT, MiSS or VeRA layers")
    return factors


def save_lora(factors: Factors, folder: Path, *, base: str, settings: dict[str, Any] | None = None) -> None:
    """Write factors as a LoRA adapter for peft and all engines. `settings` are more keys for adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous().cpu()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous().cpu()
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config = lora_config({name: len(a) for name, (a, _) in factors.items()}) | {"base_model_name_or_path": base}
    text = json.dumps(config | (settings or {}), indent=2, sort_keys=True)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
