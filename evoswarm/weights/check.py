"""Checks that experts are compatible with each other, from headers; one line per cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evoswarm.weights.expert import Expert
from evoswarm.weights.kinds import ADAPTER_KINDS, kind_of
from evoswarm.weights.merge import full_tensors, lora_modules
from evoswarm.weights.words import grouped, more

_FORM = {
    "r": "rank",
    "target_modules": "target modules",
    "bias": "bias",
    "rank_pattern": "rank pattern",
    "modules_to_save": "modules_to_save",
}
"""Settings that explain other tensors."""
_MEANING = {
    "peft_type": "peft type",
    "ensure_weight_tying": "ensure_weight_tying",
}
"""Settings that give the same tensors another meaning."""
_MODEL = {"model_type": "model type", "architectures": "architecture"}
_DEFAULTS: dict[str, Any] = {
    "peft_type": "LORA",
    "ensure_weight_tying": False,
    "bias": "none",
    "r": 8,
}


def mismatches(experts: Sequence[Expert], *, product: bool = False) -> list[str]:
    """All reasons why experts are invalid or incompatible with the first valid one, one line per cause.

    In `product` space, ranks, target modules and whole tensors may differ.
    """
    unfit = [(expert.name, line) for expert in experts for line in _unfit(expert)]
    fit = [expert for expert in experts if expert.name not in dict(unfit)]
    differences = [(e.name, line) for e in fit[1:] for line in _differences(e, fit[0], product=product)]
    return grouped([*unfit, *differences, *(_sizes(fit) if product else ())])


def _unfit(expert: Expert) -> Iterator[str]:
    """Why an expert cannot be evolved."""
    if not expert.specs:
        yield f"contains no tensors; {_GATHER}"
    elif empty := _empty(expert):
        yield f"{empty[0]} is {list(expert.specs[empty[0]].shape)}{more(len(empty) - 1, 'tensors')}; {_GATHER}"
    elif expert.kind == "adapter":
        if kind := kind_of(expert.config):
            yield from kind.problems(expert.config, expert.specs)
        else:
            known = " and ".join(ADAPTER_KINDS)
            yield (
                f"peft type {expert.config['peft_type']}, only {known} adapters can be evolved; `evoswarm experts "
                "convert` makes others plain LoRA or, with --save checkpoint, checkpoints"
            )


_GATHER = (
    "DeepSpeed ZeRO-3 and FSDP save such files if weights are not gathered first: set "
    "stage3_gather_16bit_weights_on_model_save (FSDP: FULL_STATE_DICT) and save again, or convert the training's "
    "checkpoint with zero_to_fp32.py"
)


def _empty(expert: Expert) -> list[str]:
    """Weights without values, and factors that are parts of a matrix."""
    shapes = {name: spec.shape for name, spec in sorted(expert.specs.items()) if name.endswith(_WEIGHTS)}
    return [name for name, shape in shapes.items() if 0 in shape or (".lora_" in name and len(shape) != 2)]


_WEIGHTS = (".weight", ".lora_embedding_A", ".lora_embedding_B")


def _differences(expert: Expert, first: Expert, *, product: bool) -> list[str]:
    """What differs from the first expert: the settings that explain it, else the tensors."""
    if expert.kind != first.kind:
        return [f"is of kind {expert.kind}, but {first.name} is of kind {first.kind}"]
    if expert.kind == "checkpoint":
        return [*_settings(expert, first, _MODEL), *_tensors(expert, first)]
    kind = kind_of(expert.config)
    meaning = _settings(expert, first, _MEANING | (kind.settings if kind else {}))
    tensors = [] if product else _tensors(expert, first)
    return [*meaning, *((_settings(expert, first, _FORM) or tensors) if tensors else [])]


def _settings(expert: Expert, first: Expert, labels: Mapping[str, str]) -> list[str]:
    lines = []
    for key, label in labels.items():
        mine, theirs = (_canonical(key, e.config.get(key)) for e in (expert, first))
        if mine != theirs:
            lines.append(f"{label} {_show(mine)}, {first.name} has {_show(theirs)}")
    return lines


def _canonical(key: str, value: Any) -> Any:
    if value is None:
        return _DEFAULTS.get(key)
    if isinstance(value, list):
        return sorted(map(str, value)) or None
    return value if isinstance(value, bool | int | float) else value or None


def _show(value: Any) -> str:
    return "[" + ", ".join(value) + "]" if isinstance(value, list) else str(value)


def _tensors(expert: Expert, first: Expert) -> list[str]:
    mine, theirs = expert.specs, first.specs
    both = sorted(set(mine) & set(theirs))
    lines = list(tensor_names(mine, theirs, first.name))
    if odd := [name for name in both if mine[name].shape != theirs[name].shape]:
        here, there = (list(specs[odd[0]].shape) for specs in (mine, theirs))
        lines.append(f"{odd[0]} has shape {here}, {first.name} has {there}{more(len(odd) - 1, 'tensors')}")
    if odd := [name for name in both if mine[name].is_float != theirs[name].is_float]:
        types = [specs[odd[0]].dtype for specs in (mine, theirs)]
        lines.append(f"{odd[0]} is {types[0]}, {first.name} has {types[1]}{more(len(odd) - 1, 'tensors')}")
    return lines


def _sizes(experts: Sequence[Expert]) -> Iterator[tuple[str, str]]:
    """Experts with modules and whole tensors that have other sizes than in an earlier expert."""
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    for expert in experts:
        sizes = sorted(_changed_sizes(expert).items())
        odd = [(name, size) for name, size in sizes if seen.setdefault(name, (expert.name, size))[1] != size]
        if odd:
            (name, size), (other, known) = odd[0], seen[odd[0][0]]
            yield expert.name, f"{name} is {list(size)}, {other} has {list(known)}{more(len(odd) - 1, 'modules')}"


def _changed_sizes(expert: Expert) -> dict[str, tuple[int, ...]]:
    """What an adapter changes, with its shape: B A of each module as [out, in]."""
    pairs = lora_modules(expert.specs)
    products = {module: (pair.b.shape[0], pair.a.shape[1]) for module, pair in pairs.items()}
    return products | {name: spec.shape for name, spec in full_tensors(expert.specs).items()}


def tensor_names(mine: Mapping[str, Any], theirs: Mapping[str, Any], other: str) -> Iterator[str]:
    """Tensors that only one of two experts has, one line per direction."""
    for label, left, right in (("has no", theirs, mine), ("has an extra", mine, theirs)):
        if odd := sorted(set(left) - set(right)):
            yield f"{label} tensor {odd[0]}{more(len(odd) - 1, 'tensors')} (compared with {other})"
