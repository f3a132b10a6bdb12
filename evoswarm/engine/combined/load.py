"""Loads the models of a combination; those with one base share the parameters that their adapters leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.engine.combined.combination import Member
from evoswarm.engine.install import Installer
from evoswarm.engine.load import saved_tensors
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.hub import model_folder
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.pool import open_pool


def load_members(members: Sequence[Member], load: Callable[[str], Any]) -> list[Any]:
    """The models of members. Each base model is loaded once, with `load`.

    Raises:
        UserError: one cannot be loaded, or an adapter does not fit its base.
    """
    loaded: dict[Member, Any] = {}
    for name in dict.fromkeys(member.model for member in members):
        base = load(name)
        for member in (one for one in members if one.model == name):
            loaded[member] = base if member.adapter is None else adapted(base, name, member.adapter)
    return [loaded[member] for member in members]


def adapted(base: Any, model: str, folder: Path) -> Any:
    """A copy of a base model with an adapter merged; other parameters are shared."""
    config, weights = lora(folder, model)
    installer = Installer(base, config, saved=saved_tensors(model_folder(model)))
    installer.install(weights)
    shared = {name: one for name, one in base.named_parameters() if name not in installer.adapted}
    result = copy.deepcopy(base, {id(parameter): parameter for parameter in shared.values()})
    installer.install(None)
    return result


def lora(folder: Path, model: str) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """adapter_config.json and tensors of an adapter, as engines take them."""
    pool = open_pool(PoolConfig(experts=[folder]), model=model, check=False, alone=True)
    (expert,) = pool.experts
    converter = lora_converter(model, expert.config)
    if converter is None:
        return expert.config, expert.tensors()
    return converter.lora_config(), converter.tensors(expert.tensors())
