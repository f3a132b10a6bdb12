"""Converts WeGeFT adapters on disk to equivalent LoRA adapters."""

from __future__ import annotations

import json
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.weights.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import Expert, is_expert_folder, open_expert
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.pool import open_pool
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors


def export_lora(source: Path, output: Path, *, model: str) -> list[Path]:
    """Write the equivalent LoRA of one WeGeFT adapter, or of each adapter in a pool, and return the folders.

    The LoRA is generated from the weights of the base model, which is not loaded.

    Raises:
        UserError: there is no WeGeFT adapter, it does not fit the base model, or `output` is not empty.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; choose a new folder")
    if is_expert_folder(source):
        return [_export(open_expert(source), output, model)]
    pool = open_pool(PoolConfig(experts=source.resolve()), model=model, alone=True)
    return [_export(expert, output / expert.name, model) for expert in pool.experts]


def _export(expert: Expert, folder: Path, model: str) -> Path:
    converter = lora_converter(model, expert.config if expert.kind == "adapter" else None)
    if converter is None:
        kind = expert.config.get("peft_type", expert.kind)
        raise UserError(f"{expert.path}: is {kind}, which needs no conversion to LoRA")
    tensors = converter.tensors(expert.tensors())
    specs = [TensorSpec.of(name, array) for name, array in sorted(tensors.items())]
    folder.mkdir(parents=True, exist_ok=True)
    arrays = ((spec.name, tensors[spec.name]) for spec in specs)
    write_safetensors(folder / ADAPTER_FILE, specs, arrays, metadata={"format": "pt"})
    text = json.dumps(converter.lora_config(), indent=2, sort_keys=True)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
    return folder
