"""Small pools written directly to disk, and exact comparison of arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.tensorfile import DTYPES, TensorFile, TensorSpec, write_safetensors

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_checkpoint(folder: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write a checkpoint expert with these tensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    write_file(folder / "model.safetensors", tensors)
    return folder


def write_lora(folder: Path, tensors: Mapping[str, np.ndarray], **config: object) -> Path:
    """Write an adapter expert with these tensors."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4} | config))
    write_file(folder / "adapter_model.safetensors", tensors)
    return folder


def write_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file."""
    specs = [TensorSpec(name, array.shape, NAMES[array.dtype]) for name, array in tensors.items()]
    write_safetensors(path, specs, tensors.items())


def pool_of(folder: Path, **settings: object) -> Pool:
    """The validated pool of a folder of experts; the base model of checkpoints is all zeros."""
    return open_pool(PoolConfig(experts=folder, **settings), model=zero_base(folder))


def zero_base(folder: Path) -> str:
    """The base model of a folder of experts, a folder next to it: zeros, or nothing if the experts are adapters."""
    expert, base = next(child for child in sorted(folder.iterdir())), folder.parent / f"{folder.name}-base"
    if not (expert / "model.safetensors").exists():
        return "nobody/nothing"
    if not base.exists():
        file = TensorFile(expert / "model.safetensors")
        write_checkpoint(base, {name: np.zeros(spec.shape, spec.numpy_dtype) for name, spec in file.specs.items()})
    return str(base)


def same_bytes(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> bool:
    """Whether two sets of weights are equal bit for bit, in name, shape and type."""
    return list(left) == list(right) and all(
        (left[n].shape, left[n].dtype, left[n].tobytes()) == (right[n].shape, right[n].dtype, right[n].tobytes())
        for n in left
    )


def edit_config(expert: Path, **changes: object) -> None:
    """Change fields of an adapter's configuration."""
    path = expert / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
