"""Models and adapters of real sizes whose files have real headers and few values, so that they need little space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PretrainedConfig

from evoswarm.toy import world

SHARD = 4 << 30
"""Bytes of a shard."""
VALUES = 2048
"""Values at the start of each tensor that are not zero."""
Shapes = Mapping[str, tuple[int, ...]]


def write_sparse(path: Path, shapes: Shapes, *, seed: int = 0) -> None:
    """A safetensors file of bf16 tensors; all but the first values of each are zeros that are not on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text, rng = json.dumps(header).encode(), np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for entry in header.values():
            start, stop = entry["data_offsets"]
            values = rng.standard_normal(min(VALUES, (stop - start) // 2)).astype(ml_dtypes.bfloat16)
            file.seek(8 + len(text) + start)
            file.write(values.tobytes())


def save_model(config: PretrainedConfig, folder: Path, *, seed: int = 0) -> Path:
    """A model in shards, with the toy world's tokenizer."""
    folder.mkdir(parents=True)
    model = skeleton(config)
    model.config.architectures, model.config.dtype = [type(model).__name__], torch.bfloat16
    model.config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(world() / "base" / name, folder / name)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, tensor in model.state_dict().items():
        if size + 2 * tensor.numel() > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = tuple(tensor.shape)
        size += 2 * tensor.numel()
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, start=1)}
    for number, (file, shapes) in enumerate(files.items()):
        write_sparse(folder / file, shapes, seed=seed + number)
    index = {"weight_map": {name: file for file, shapes in files.items() for name in shapes}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def save_adapter(config: PretrainedConfig, folder: Path, *, rank: int, base: Path, seed: int = 0) -> Path:
    """A LoRA of all linear layers but the head."""
    folder.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {}
    targets = set()
    for name, module in skeleton(config).named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            targets.add(name.rpartition(".")[2])
            shapes[f"base_model.model.{name}.lora_A.weight"] = rank, module.in_features
            shapes[f"base_model.model.{name}.lora_B.weight"] = module.out_features, rank
    write_sparse(folder / "adapter_model.safetensors", shapes, seed=seed)
    lora = LoraConfig(r=rank, target_modules=sorted(targets), task_type="CAUSAL_LM", base_model_name_or_path=str(base))
    lora.save_pretrained(folder)
    return folder


def skeleton(config: PretrainedConfig) -> torch.nn.Module:
    """The model without values."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
