"""Experts under the names of the model that transformers loads, so that each of its tensors has one name in a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evoswarm.errors import UserError
from evoswarm.weights.base import BaseTensors
from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import adapter_key, alpha_of, full_tensors, is_saved, lora_modules, rank_of
from evoswarm.weights.names import PREFIX

Modules = Mapping[str, str]
"""The new name of each module."""


def own_names(expert: Expert, base: BaseTensors) -> Expert:
    """An adapter under the loaded model's names; unchanged if it has a tensor under two of them."""
    keys = {name: name for name in expert.stored}
    try:
        pairs = lora_modules(keys)
    except UserError:  # the pool's check reports half a pair
        return expert
    modules = {module: base.own(f"{module}.weight").removesuffix(".weight") for module in pairs}
    new = {
        key: PREFIX + modules[module] + key.removeprefix(PREFIX + module)
        for module, pair in pairs.items()
        for key in (pair.a, pair.b)
    }
    whole = {parameter: base.own(parameter) for parameter in full_tensors(keys)}
    new |= {key: adapter_key(whole[name], set(modules.values())) for name, key in full_tensors(keys).items()}
    made = _renamed(expert, new)
    if made is expert:
        return expert
    saved = {name.rpartition(".")[0]: renamed.rpartition(".")[0] for name, renamed in whole.items()}
    return replace(made, config=_settings(expert.config, modules, saved))


def same_names(experts: Sequence[Expert], base: BaseTensors) -> list[Expert]:
    """Checkpoints under the names of the first one."""
    first = experts[0].stored.keys()
    if all(expert.stored.keys() == first for expert in experts):
        return list(experts)
    names = {base.own(name): name for name in first}
    return [_renamed(e, {key: names.get(base.own(key), key) for key in e.stored}) for e in experts]


def _renamed(expert: Expert, new: Mapping[str, str]) -> Expert:
    """An expert whose tensors have new names; itself if none changes, or if two would have one name."""
    changed = {old: new.get(old, old) for old in expert.stored}
    if all(old == name for old, name in changed.items()) or len(set(changed.values())) < len(changed):
        return expert
    stored = {
        changed[old]: replace(tensor, spec=replace(tensor.spec, name=changed[old]))
        for old, tensor in expert.stored.items()
    }
    return replace(expert, stored=stored)


def _settings(config: Mapping[str, Any], modules: Modules, saved: Modules) -> dict[str, Any]:
    """adapter_config.json for the new names, all of them: short names may mean other modules of the loaded model."""
    ranks = {new: rank_of(config, old) for old, new in modules.items()}
    alphas = {new: alpha_of(config, old) for old, new in modules.items()}
    return {
        **config,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != config.get("r", 8)},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != config.get("lora_alpha", 8)},
        "target_modules": sorted(modules.values()),
        "modules_to_save": sorted({new for old, new in saved.items() if is_saved(old, config)}) or None,
    }
