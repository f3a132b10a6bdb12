"""An adapter folder on disk, as peft or another tool wrote it, as peft's tensors and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.weights.loaded import loaded_modules
from evoswarm.weights.names import is_transposed, peft_names
from evoswarm.weights.settings import wrong_setting
from evoswarm.weights.stored import Stored
from evoswarm.weights.tensorfile import TensorFile

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_SHARDS = "adapter_model-*-of-*.safetensors"
MLX_FILE = "adapters.safetensors"
_KOHYA = {"lora_down", "lora_up"}
_SAVE = "save the adapter with peft's save_pretrained"


def adapter_files(path: Path) -> list[Path]:
    """The safetensors files of an adapter folder.

    Raises:
        UserError: there are none, or a shard is missing.
    """
    if (path / ADAPTER_FILE).exists():
        return [path / ADAPTER_FILE]
    if shards := sorted(path.glob(ADAPTER_SHARDS)):
        total = shards[0].stem.rpartition("-of-")[2]
        if not total.isdecimal() or len(shards) != int(total):
            raise UserError(f"{path}: has {len(shards)} of {total} shards of the adapter; copy the whole folder")
        return shards
    if (path / MLX_FILE).exists():
        return [path / MLX_FILE]
    if any(path.glob("adapter_model*.bin")):
        raise UserError(
            f"{path}: adapter_model.bin is a pickle, which can run code and is not read; convert it where you "
            "trust it: PeftModel.from_pretrained(base, folder).save_pretrained(folder)"
        )
    raise UserError(f"{path}: {ADAPTER_FILE} is missing; {_SAVE}")


def peft_config(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in peft's keys; mlx-lm has other ones.

    Raises:
        UserError: mlx-lm trained something other than LoRA.
    """
    if not isinstance(mlx := config.get("lora_parameters"), dict) or "lora_alpha" in config:
        return config
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise UserError(f"{path}: mlx-lm's fine_tune_type {kind} is not supported; only lora adapters can be evolved")
    rank = int(mlx.get("rank", 8))
    # Versions that wrote an alpha multiplied by alpha / rank as well.
    scale = float(mlx.get("scale", 1.0)) * (float(mlx["alpha"]) / rank if "alpha" in mlx else 1.0)
    base = config.get("base_model_name_or_path") or config.get("model")
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": scale * rank,
        "lora_dropout": float(mlx.get("dropout") or 0.0),
        "r": rank,
    }


def adapter_tensors(files: Sequence[TensorFile], config: Mapping[str, Any], *, model: str | None) -> dict[str, Stored]:
    """The tensors under peft's names.

    Raises:
        UserError: two tensors have one name, their names are another library's, or a setting is nothing that peft
            writes.
    """
    where = {key: file for file in files for key in file.specs}
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        return {key: Stored.of(file, key) for key, file in where.items()}
    if wrong := wrong_setting(config):
        raise UserError(f"{ADAPTER_CONFIG}: {wrong}; {_SAVE}")
    if kohya := [key for key in where if _KOHYA & set(key.split("."))]:
        raise UserError(
            f"{kohya[0]} has the names of Kohya's trainer (lora_down, lora_up), which peft does not load; convert the "
            "adapter where it was made to <module>.lora_A.weight and <module>.lora_B.weight, and its alpha to "
            f"lora_alpha in {ADAPTER_CONFIG}"
        )
    known = partial(loaded_modules, model) if model else frozenset
    names = peft_names(where, known)
    if stacked := [key for key in where if is_transposed(key) and len(where[key].specs[key].shape) != 2]:
        raise UserError(f"{where[stacked[0]].path}: {stacked[0]} adapts stacked experts, which cannot be evolved")
    return {name: Stored.of(where[key], key, name=name, transposed=is_transposed(key)) for name, key in names.items()}
