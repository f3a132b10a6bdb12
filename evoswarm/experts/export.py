"""Converts adapters on disk, of any method of peft, to LoRA adapters or merged checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftConfig, PeftModel
from peft.utils import load_peft_weights, set_peft_model_state_dict

from evoswarm.config.training import Save
from evoswarm.engine import TransformersEngine
from evoswarm.engine.load import load_model
from evoswarm.errors import UserError, first_line
from evoswarm.experts.convert import adapt
from evoswarm.experts.method import Chosen, described
from evoswarm.experts.save import save
from evoswarm.place import replacing_folder
from evoswarm.weights.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evoswarm.weights.expert import Expert, is_expert_folder, open_expert
from evoswarm.weights.folders import find_experts
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors


def export(source: Path, output: Path, *, model: str, how: Save = "lora") -> list[Path]:
    """Write the equivalent LoRA, or the merged checkpoint, of one adapter or of each in a pool; returns the folders.

    Raises:
        UserError: an adapter does not convert or does not fit the base model, or `output` is not empty.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; choose a new folder")
    if is_expert_folder(source):
        return [_export(open_expert(source, model=model), output, model, how)]
    folders = find_experts(source.resolve(), model=model).folders
    experts = [open_expert(folder, name=name, model=model) for name, folder in folders.items()]
    return [_export(expert, output / expert.name, model, how) for expert in experts]


def _export(expert: Expert, folder: Path, model: str, how: Save) -> Path:
    if expert.kind != "adapter":
        raise UserError(f"{expert.path}: is a checkpoint, which needs no conversion")
    if how == "lora" and (converter := lora_converter(model, expert.config)) is not None:
        tensors = converter.tensors(expert.tensors())
        specs = [TensorSpec.of(name, array) for name, array in sorted(tensors.items())]
        arrays = ((spec.name, tensors[spec.name]) for spec in specs)
        text = json.dumps(converter.lora_config(), indent=2, sort_keys=True)
        with replacing_folder(folder) as new:
            write_safetensors(new / ADAPTER_FILE, specs, arrays, metadata={"format": "pt"})
            (new / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
        return folder
    return _with_peft(expert, folder, model, how)


def _with_peft(expert: Expert, folder: Path, model: str, how: Save) -> Path:
    """Loads the base model and the adapter as peft does."""
    try:
        chosen = described(PeftConfig.from_pretrained(str(expert.path)))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{expert.path}: peft cannot read {ADAPTER_CONFIG} ({first_line(error)})") from None
    _require(expert, chosen, how)
    base = load_model(model, TransformersEngine())
    try:
        chosen.config.inference_mode = False  # so that the trained parameters can be told from the others
        adapted, start = adapt(base, chosen)
        found = set_peft_model_state_dict(adapted, load_peft_weights(str(expert.path), device="cpu"))
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        raise UserError(f"{expert.path}: does not fit {model} ({first_line(error)})") from None
    for key in (*found.unexpected_keys, *_missing(adapted, set(found.missing_keys))):
        raise UserError(f"{expert.path}: peft does not read or find tensor {key}; save the adapter with this peft")
    with replacing_folder(folder) as new:
        save(adapted.eval(), new, chosen, how=how, start=start)
    return folder


def _missing(model: PeftModel, keys: set[str]) -> list[str]:
    """Trained parameters that the adapter does not have under any of their names: layers can share parameters."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            names.setdefault(id(parameter), []).append(name)
    return [own[0] for own in names.values() if keys.issuperset(own)]


def _require(expert: Expert, chosen: Chosen, how: Save) -> None:
    if how == "lora" and chosen.plain:
        raise UserError(f"{expert.path}: is {expert.config.get('peft_type')}, which needs no conversion to LoRA")
    niter = "_niter" in str(chosen.config.to_dict().get("init_lora_weights"))
    if not chosen.kind.recomputed or niter:
        raise UserError(
            f"{expert.path}: method {chosen.name} changed the base weights in a way that cannot be repeated; convert "
            "it where it was trained: save_pretrained(folder, path_initial_model_for_weight_conversion=...)"
        )
    chosen.require(how)
