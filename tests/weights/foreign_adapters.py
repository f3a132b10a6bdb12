"""Adapters as tools other than peft write them, made from an adapter that peft wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import load

from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool
from evoswarm.weights.save import save_expert

PREFIX = "base_model.model."
FILE = "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]


def rename(spelling: Callable[[str], str]) -> Callable[[Path], None]:
    """Rewrites an adapter with other names."""

    def write(expert: Path) -> None:
        tensors = load_file(expert / FILE)
        save_file({spelling(name): tensor for name, tensor in tensors.items()}, expert / FILE)

    return write


def as_mlx(expert: Path) -> None:
    """Rewrites an adapter as mlx-lm does: another file, names, orientation and configuration."""
    tensors, config = load_file(expert / FILE), json.loads((expert / "adapter_config.json").read_text())
    names = {key: key.removeprefix(PREFIX).replace("lora_A.weight", "lora_a") for key in tensors}
    names = {key: name.replace("lora_B.weight", "lora_b") for key, name in names.items()}
    save_file({names[key]: tensor.T.contiguous() for key, tensor in tensors.items()}, expert / "adapters.safetensors")
    (expert / FILE).unlink()
    scale = config["lora_alpha"] / config["r"]
    mlx = {"rank": config["r"], "scale": scale, "dropout": 0.0}
    settings = {"fine_tune_type": "lora", "lora_parameters": mlx, "num_layers": 16}
    settings["model"] = config["base_model_name_or_path"]
    (expert / "adapter_config.json").write_text(json.dumps(settings))


def as_shards(expert: Path) -> None:
    """Rewrites an adapter in two files, with the index that transformers writes."""
    tensors = load_file(expert / FILE)
    names = sorted(tensors)
    parts = {f"adapter_model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, expert / file)
    (expert / FILE).unlink()
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (expert / "model.safetensors.index.json").write_text(json.dumps(index))


def logits(base: Path, adapter: Path) -> torch.Tensor:
    """The logits [1, T, vocabulary] of the adapted model, by peft."""
    model = PeftModel.from_pretrained(load(base, dtype=torch.float32), adapter).eval()
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits


def exported(pool: Path | list[Path], base: Path, name: str, folder: Path, **settings: Any) -> Path:
    """Read a pool and save one of its experts, as a run saves its best particle."""
    opened = open_pool(PoolConfig(experts=pool, **settings), model=str(base))
    row = Row(((ExpertVector(name), 1.0),))
    save_expert(Materializer(opened), row, folder, base=str(base))
    return folder
