"""Checks that experts are compatible with each other and with the base model; reports all mismatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert
from evoswarm.weights.kinds import ADAPTER_KINDS, kind_of
from evoswarm.weights.merge import full_tensors, lora_modules

_ADAPTER_SETTINGS = {
    "peft_type": "peft type",
    "r": "rank",
    "target_modules": "target modules",
    "bias": "bias",
    "base_model_name_or_path": "base model",
    "rank_pattern": "rank pattern",
    "modules_to_save": "modules_to_save",
    "ensure_weight_tying": "ensure_weight_tying",
}
_MODEL_SETTINGS = {"model_type": "model type", "architectures": "architecture"}
_OWN_IN_PRODUCT = ("r", "target_modules", "bias", "rank_pattern", "modules_to_save")
"""Settings that may differ between experts that are mixed in product space."""
_DEFAULTS: dict[str, Any] = {
    "peft_type": "LORA",
    "ensure_weight_tying": False,
    "bias": "none",
    "r": 8,
}


def mismatches(experts: Sequence[Expert], *, product: bool = False) -> list[str]:
    """All reasons why experts are invalid or incompatible with the first one, one line each.

    In `product` space, ranks and target modules may differ.
    """
    first = experts[0]
    problems = [f"{e.name}: {line}" for e in experts for line in _unfit(e)]
    for expert in experts[1:]:
        if expert.kind != first.kind:
            problems.append(f"{expert.name}: is of kind {expert.kind}, but {first.name} is of kind {first.kind}")
            continue
        problems += _settings(expert, first, _OWN_IN_PRODUCT if product else ())
        problems += [] if product else _tensors(expert, first)
    return [*problems, *(_sizes(experts) if product else ())]


def _unfit(expert: Expert) -> Iterator[str]:
    """Why an expert cannot be evolved."""
    if not expert.specs:
        yield "contains no tensors; save it again"
    elif expert.kind == "adapter":
        if kind := kind_of(expert.config):
            yield from kind.problems(expert.config, expert.specs)
        else:
            known = " and ".join(ADAPTER_KINDS)
            yield (
                f"peft type {expert.config['peft_type']}, only {known} adapters can be evolved; `evoswarm experts "
                "convert` makes others plain LoRA or, with --save checkpoint, checkpoints"
            )


def _settings(expert: Expert, first: Expert, own: Sequence[str]) -> list[str]:
    lines = []
    kind = kind_of(expert.config)
    adapter_settings = _ADAPTER_SETTINGS | (kind.settings if kind else {})
    for key, label in (_MODEL_SETTINGS if expert.kind == "checkpoint" else adapter_settings).items():
        mine, theirs = (_canonical(key, e.config.get(key)) for e in (expert, first))
        if key in own or (key == "target_modules" and set(expert.specs) == set(first.specs)):
            continue  # an equivalent spelling of the same modules
        if key == "base_model_name_or_path" and None in (mine, theirs):
            continue  # some tools do not write it
        if mine != theirs:
            lines.append(f"{expert.name}: {label} {_show(mine)}, {first.name} has {_show(theirs)}")
    return lines


def _canonical(key: str, value: Any) -> Any:
    if value is None:
        return _DEFAULTS.get(key)
    if key == "base_model_name_or_path":
        return base_name(value)
    if isinstance(value, list):
        return sorted(map(str, value)) or None
    return value if isinstance(value, bool | int | float) else value or None


def base_name(name: str | None) -> str | None:
    """The name of a base model, independent of its location: a hub name, a local folder, or the hub's cache.

    Example:
        base_name("org/Model") == base_name("/data/model/") == "model"
    """
    parts = [part for part in str(name or "").replace("\\", "/").split("/") if part]
    cached = [part.split("--")[-1] for part in parts if part.startswith("models--")]
    return (cached or parts)[-1].lower() if parts else None


def _show(value: Any) -> str:
    return "[" + ", ".join(value) + "]" if isinstance(value, list) else str(value)


def _tensors(expert: Expert, first: Expert) -> list[str]:
    mine, theirs = expert.specs, first.specs
    lines = tensor_names(mine, theirs, expert.name, first.name)
    for key in sorted(set(mine) & set(theirs)):
        if mine[key].shape != theirs[key].shape:
            shapes = list(mine[key].shape), list(theirs[key].shape)
            lines.append(f"{expert.name}: {key} has shape {shapes[0]}, {first.name} has {shapes[1]}")
        elif mine[key].is_float != theirs[key].is_float:
            lines.append(f"{expert.name}: {key} is {mine[key].dtype}, {first.name} has {theirs[key].dtype}")
    return _at_most(12, lines, expert)


def _sizes(experts: Sequence[Expert]) -> list[str]:
    """Modules and whole tensors that have other sizes than in an earlier expert."""
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    problems = []
    for expert in experts:
        lines = []
        for name, size in sorted(_changed_sizes(expert).items()):
            other, known = seen.setdefault(name, (expert.name, size))
            if size != known:
                lines.append(f"{expert.name}: {name} is {list(size)}, {other} has {list(known)}")
        problems += _at_most(12, lines, expert)
    return problems


def _changed_sizes(expert: Expert) -> dict[str, tuple[int, ...]]:
    """What an adapter changes, with its shape: B A of each module as [out, in]."""
    try:
        pairs = lora_modules(expert.specs)
    except UserError:
        return {}  # `_unfit` reports this
    products = {module: (pair.b.shape[0], pair.a.shape[1]) for module, pair in pairs.items()}
    return products | {name: spec.shape for name, spec in full_tensors(expert.specs).items()}


def _at_most(count: int, lines: list[str], expert: Expert) -> list[str]:
    more = [f"{expert.name}: ... and {len(lines) - count} more differences"] if len(lines) > count else []
    return lines[:count] + more


def tensor_names(mine: Mapping[str, Any], theirs: Mapping[str, Any], name: str, other: str) -> list[str]:
    """Tensors that only one of two experts has."""
    lines = []
    for label, left, right in (("has no", theirs, mine), ("has an extra", mine, theirs)):
        odd = sorted(set(left) - set(right))
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            lines.append(f"{name}: {label} tensor {odd[0]}{more} (compared with {other})")
    return lines
