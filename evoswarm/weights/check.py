"""Whether experts fit each other and the base model: every mismatch of every expert is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert, checkpoint_files
from evoswarm.weights.tensorfile import TensorFile, TensorSpec

LORA_SETTINGS = {
    "peft_type": "peft type",
    "r": "rank",
    "lora_alpha": "alpha",
    "use_rslora": "rslora",
    "target_modules": "target modules",
    "bias": "bias",
    "base_model_name_or_path": "base model",
    "rank_pattern": "rank pattern",
    "alpha_pattern": "alpha pattern",
    "fan_in_fan_out": "fan_in_fan_out",
    "modules_to_save": "modules_to_save",
}
_DEFAULTS: dict[str, Any] = {"use_rslora": False, "fan_in_fan_out": False, "bias": "none", "lora_alpha": 8, "r": 8}
_NOT_LINEAR = {"use_dora": "DoRA's magnitude makes the merge non-linear", "use_qalora": "its layers are quantised"}


def mismatches(experts: Sequence[Expert], *, include_base: bool = False) -> list[str]:
    """Every way in which an expert does not fit the first one, one line each."""
    first = experts[0]
    problems = [line for expert in experts for line in _alone(expert, include_base=include_base)]
    for expert in experts[1:]:
        if expert.kind != first.kind:
            problems.append(f"{expert.name}: is a {expert.kind}, {first.name} is a {first.kind}")
            continue
        problems += _settings(expert, first) + _tensors(expert.specs, first.specs, expert.name, first.name)
    return problems


def _alone(expert: Expert, *, include_base: bool) -> list[str]:
    if expert.kind == "checkpoint":
        return []
    problems = [
        f"{expert.name}: {key} is not supported ({why})" for key, why in _NOT_LINEAR.items() if expert.config.get(key)
    ]
    if str(expert.config.get("peft_type", "LORA")).upper() != "LORA":
        problems.append(f"{expert.name}: peft type {expert.config['peft_type']}, only LORA adapters can be evolved")
    known = (".lora_A.", ".lora_B.", ".lora_embedding_")
    full = [name for name in expert.specs if not any(part in name for part in known)]
    if full and include_base:
        problems.append(f"{expert.name}: saves whole modules ({full[0]}); include_base needs pure LoRA adapters")
    return problems


def _settings(expert: Expert, first: Expert) -> list[str]:
    if expert.kind == "checkpoint":
        keys = {"model_type": "model type", "architectures": "architecture"}
    else:
        keys = LORA_SETTINGS
    lines = []
    for key, label in keys.items():
        mine, theirs = (_canonical(e.config.get(key, _DEFAULTS.get(key))) for e in (expert, first))
        if mine != theirs:
            lines.append(f"{expert.name}: {label} {_show(mine)}, {first.name} has {_show(theirs)}")
    return lines


def _canonical(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(map(str, value))
    return value or None if not isinstance(value, bool | int | float) else value


def _show(value: Any) -> str:
    return "[" + ", ".join(value) + "]" if isinstance(value, list) else str(value)


def _tensors(mine: dict[str, TensorSpec], theirs: dict[str, TensorSpec], name: str, first: str) -> list[str]:
    lines = []
    for label, left, right in (("lacks", theirs, mine), ("has an extra", mine, theirs)):
        missing = sorted(set(left) - set(right))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            lines.append(f"{name}: {label} tensor {missing[0]}{more} (compared with {first})")
    for key in sorted(set(mine) & set(theirs)):
        if mine[key].shape != theirs[key].shape:
            lines.append(f"{name}: {key} has shape {list(mine[key].shape)}, {first} has {list(theirs[key].shape)}")
        elif mine[key].dtype != theirs[key].dtype:
            lines.append(f"{name}: {key} is {mine[key].dtype}, {first} has {theirs[key].dtype}")
    return lines[:12] + ([f"{name}: ... and {len(lines) - 12} more differences"] if len(lines) > 12 else [])


def base_mismatches(expert: Expert, base: Path) -> list[str]:
    """Ways in which an expert does not fit a base model that lies in a local folder."""
    from evoswarm.weights.merge import lora_modules

    try:
        specs = {name: spec for path in checkpoint_files(base) for name, spec in TensorFile(path).specs.items()}
    except UserError as error:
        return [str(error)]
    if expert.kind == "checkpoint":
        return _tensors(expert.specs, specs, expert.name, "the base model")
    lines = []
    for module, parts in lora_modules(expert.specs).items():
        # A bare backbone on disk has names without the head model's prefix, and a tied head has no tensor of its own.
        weight = specs.get(f"{module}.weight") or specs.get(f"{module.partition('.')[2]}.weight")
        if weight is None:
            if module == "lm_head":
                continue
            lines.append(f"{expert.name}: adapts {module}, which the base model does not have")
            continue
        want = sorted(weight.shape)
        have = sorted([parts.b.shape[0], parts.a.shape[1]])
        if want != have:
            lines.append(f"{expert.name}: {module} is {have[0]} x {have[1]}, the base model has {want[0]} x {want[1]}")
    return lines[:6]
