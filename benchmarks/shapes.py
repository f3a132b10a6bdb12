"""Random models and adapters of the shapes of real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evoswarm.weights.tensorfile import TensorSpec, write_safetensors


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with gated MLPs."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int

    @property
    def modules(self) -> dict[str, tuple[int, int]]:
        """All linear modules of a layer: name to (in, out)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (self.hidden, query),
            "self_attn.k_proj": (self.hidden, key),
            "self_attn.v_proj": (self.hidden, key),
            "self_attn.o_proj": (query, self.hidden),
            "mlp.gate_proj": (self.hidden, self.inner),
            "mlp.up_proj": (self.hidden, self.inner),
            "mlp.down_proj": (self.inner, self.hidden),
        }

    def linear(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name and (in, out) of all linear modules of the model."""
        for layer in range(self.layers):
            for module, size in self.modules.items():
                yield f"model.layers.{layer}.{module}", size

    @property
    def adapted(self) -> int:
        """Parameters of all linear modules."""
        return sum(before * after for _, (before, after) in self.linear())

    def with_layers(self, layers: int) -> Shape:
        """The same with fewer layers."""
        return replace(self, layers=min(layers, self.layers))


GEMMA = Shape(2304, 26, 8, 4, 256, 9216, 256_000)
"""gemma-2-2b"""
QWEN = Shape(3584, 28, 28, 4, 128, 18944, 152_064)
"""Qwen2.5-7B"""
QWEN_SMALL = Shape(896, 24, 14, 2, 64, 4864, 151_936)
"""Qwen2.5-0.5B"""
TINY = Shape(64, 2, 4, 2, 16, 96, 600)


def skeleton(shape: Shape, *, device: str, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """The linear modules of a model alone, with random weights."""
    torch.manual_seed(0)
    root = nn.Module()
    for name, (before, after) in shape.linear():
        owner = root
        for part in name.split("."):
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        weight = torch.empty(after, before, dtype=dtype, device=device).normal_(std=0.02)
        owner.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    return root


def adapter_config(shape: Shape, rank: int) -> dict[str, Any]:
    """adapter_config.json of an adapter of all linear modules."""
    targets = [module.rpartition(".")[2] for module in shape.modules]
    return {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets}


def adapter_specs(shape: Shape, rank: int) -> list[TensorSpec]:
    """Tensors of an adapter of all linear modules."""
    return [
        TensorSpec(f"base_model.model.{name}.lora_{part}.weight", size, "F32")
        for name, (before, after) in shape.linear()
        for part, size in (("A", (rank, before)), ("B", (after, rank)))
    ]


def random_adapter(shape: Shape, rank: int, *, seed: int) -> dict[str, np.ndarray]:
    """Random tensors of an adapter of all linear modules."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    return {
        spec.name: (0.02 * torch.randn(spec.shape, generator=generator, device=device)).cpu().numpy()
        for spec in adapter_specs(shape, rank)
    }


def write_adapter(folder: Path, shape: Shape, rank: int, *, seed: int) -> None:
    """Save a random adapter as an expert."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(shape, rank)))
    tensors = random_adapter(shape, rank, seed=seed).items()
    write_safetensors(folder / "adapter_model.safetensors", adapter_specs(shape, rank), tensors)
