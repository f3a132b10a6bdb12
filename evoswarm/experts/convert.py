"""Exact conversion of adapted models to plain LoRA, with scaling 1: W + B A."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn

from evoswarm.errors import UserError
from evoswarm.experts.factors import LAYERS, Pair
from evoswarm.experts.method import Chosen
from evoswarm.weights.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evoswarm.weights.lora_config import lora_config

Factors = dict[str, Pair]
"""Module name to A and B."""
MAX_RANK = 512
"""The largest rank that vLLM serves."""


def adapt(base: nn.Module, chosen: Chosen) -> tuple[PeftModel, Factors | None]:
    """Add the adapter to the base model.

    Returns:
        The model, and for methods that change the base weights the factors by which they do: W0 = W + B0 A0.
    """
    kasa = chosen.config.to_dict().get("kasa_config") is not None
    before = {name: module.weight for name, module in base.named_modules() if kasa and isinstance(module, nn.Linear)}
    before = {name: weight.data for name, weight in before.items()}
    model = get_peft_model(base, chosen.config)
    if not chosen.kind.changes_base:
        return model, None
    return model, _removed(model, before) if kasa else lora_factors(model)


@torch.no_grad()
def _removed(model: PeftModel, before: dict[str, torch.Tensor]) -> Factors:
    """What KaSA removes from the base weights: their r smallest singular values."""
    factors = {}
    for name, layer in model.base_model.model.named_modules():
        if isinstance(layer, LoraLayer):
            difference = before[name].float() - layer.get_base_layer().weight.float()
            u, s, v = torch.linalg.svd(difference, full_matrices=False)
            rank = layer.r[model.active_adapter]
            factors[name] = v[:rank], u[:, :rank] * s[:rank]
    return factors


@torch.no_grad()
def lora_factors(model: PeftModel, start: Factors | None = None) -> Factors:
    """The LoRA that is equivalent to the active adapter.

    `start` are the factors that the method subtracted from the base weights (PiSSA, ...):
    W - B0 A0 + B A = W + [B, -B0] [A; A0].

    Raises:
        UserError: a layer does not convert, or its rank is too large for engines.
    """
    factors = {}
    for name, layer in model.base_model.model.named_modules():
        convert = next((function for kind, function in LAYERS.items() if isinstance(layer, kind)), None)
        if convert is not None:
            a, b = (tensor.detach().clone() for tensor in convert(layer, model.active_adapter))
            if start is not None:
                a, b = torch.cat([a, start[name][0]]), torch.cat([b, -start[name][1]], dim=1)
            if len(a) > MAX_RANK:
                raise UserError(f"as LoRA {name} has rank {len(a)}, more than engines serve ({MAX_RANK}); lower r")
            factors[name] = a, b
    if not factors:
        raise UserError("the model has no layers that convert to LoRA")
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
