"""Models of real sizes whose files have real headers and no values: they take no space on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny_models import make_tokenizer
from transformers import AutoModelForCausalLM, PretrainedConfig

SHARD = 4 << 30


def write_headers(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of bf16 zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def save_sparse(config: PretrainedConfig, folder: Path) -> Path:
    """A model in shards, with a tokenizer."""
    folder.mkdir(parents=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, tensor in model.state_dict().items():
        if size + 2 * tensor.numel() > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = tuple(tensor.shape)
        size += 2 * tensor.numel()
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, start=1)}
    for file, shapes in files.items():
        write_headers(folder / file, shapes)
    index = {"weight_map": {name: file for file, shapes in files.items() for name in shapes}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
