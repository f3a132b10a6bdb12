"""adapter_config.json of LoRAs that evoswarm writes: their scale is 1, W + B A."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import is_saved, lora_modules
from evoswarm.weights.tensorfile import TensorSpec

_KEPT = ("task_type", "base_model_name_or_path", "revision", "fan_in_fan_out", "bias", "ensure_weight_tying")
"""Settings of the experts that a mix of them keeps."""
_NARROWING = ("layers_to_transform", "exclude_modules")
"""Settings by which not all modules that target_modules names are adapted; a mix does not keep them."""


def lora_config(ranks: Mapping[str, int]) -> dict[str, Any]:
    """adapter_config.json of a LoRA with scale 1, for the rank of each module."""
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: r for name, r in sorted(ranks.items()) if r != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in ranks}),
    }


def product_config(experts: Sequence[Expert], layout: Sequence[TensorSpec]) -> dict[str, Any]:
    """adapter_config.json of a mix of experts in product space with these tensors."""
    ranks = {module: pair.a.shape[0] for module, pair in lora_modules({s.name: s for s in layout}).items()}
    first = experts[0].config
    kept = {key: first[key] for key in _KEPT if key in first}
    saved = sorted(_replaced(experts, ranks))
    targets = _canonical([e.config for e in experts])
    same = {tuple(sorted(lora_modules(e.specs))) for e in experts} == {tuple(ranks)}
    return (
        lora_config(ranks)
        | kept
        | {"modules_to_save": saved or None, "bias": _bias(experts)}
        | {"target_modules": targets if same and targets else sorted(ranks)}
    )


def _replaced(experts: Sequence[Expert], adapted: Iterable[str]) -> set[str]:
    """The experts' `modules_to_save` without those that hold an adapted module: peft adapts nothing within them.

    peft loads the tensors of the others as parameters of the base model.
    """
    names = {name for expert in experts for name in expert.config.get("modules_to_save") or ()}
    return {name for name in names if not any(is_saved(module, {"modules_to_save": [name]}) for module in adapted)}


def _canonical(configs: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The experts' target modules if they all have the same list, and it names all that they adapt and no more."""
    if any(config.get(key) is not None for config in configs for key in _NARROWING):
        return None
    lists = {tuple(sorted(t)) if isinstance(t := c.get("target_modules"), list) else None for c in configs}
    (only, *others) = lists
    return list(only) if only is not None and not others else None


def _bias(experts: Sequence[Expert]) -> str:
    """The most that an expert has trained."""
    found = {e.config.get("bias") or "none" for e in experts}
    return next((bias for bias in ("all", "lora_only") if bias in found), "none")
