"""Writes a trained adapter to the expert's folder: as LoRA, as a merged checkpoint, or in the method's own form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import GenerationConfig

from evoswarm.config.training import Save
from evoswarm.experts.convert import Factors, lora_factors, save_lora
from evoswarm.experts.method import Chosen
from evoswarm.experts.trainer import LossNotFinite
from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.expert import read_json

_GENERATION = "generation_config.json"


def save(model: PeftModel, folder: Path, chosen: Chosen, *, how: Save, start: Factors | None) -> None:
    """Write an expert. `start` is what `adapt` returned with the model; a checkpoint uses up the model.

    Raises:
        LossNotFinite: the adapter contains NaN or infinite values.
        UserError: it does not convert.
    """
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        raise LossNotFinite("the trained adapter contains NaN or infinite values; lower training.learning_rate")
    if how == "checkpoint":
        _save_checkpoint(model, folder)
    elif how == "lora" and not chosen.plain:
        config = model.peft_config[model.active_adapter]
        settings = {"fan_in_fan_out": bool(config.to_dict().get("fan_in_fan_out"))}
        save_lora(lora_factors(model, start), folder, base=str(config.base_model_name_or_path), settings=settings)
    else:
        _save_native(model, folder)


def _save_checkpoint(model: PeftModel, folder: Path) -> None:
    base = Path(str(model.peft_config[model.active_adapter].base_model_name_or_path))
    merged = model.merge_and_unload()
    merged.config.use_cache = True
    merged.generation_config = GenerationConfig()  # transformers refuses to save some that models are published with
    merged.save_pretrained(folder)
    if (base / _GENERATION).exists():
        shutil.copyfile(base / _GENERATION, folder / _GENERATION)


def _save_native(model: PeftModel, folder: Path) -> None:
    model.save_pretrained(folder, save_embedding_layers=False)
    # peft writes module names in set order, which differs between processes.
    config = read_json(folder / ADAPTER_CONFIG)
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
