"""Experts for another version of their base model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from evoswarm.engine import EngineConfig, TransformersEngine
from evoswarm.errors import UserError
from evoswarm.experts.export import export
from evoswarm.place import Place
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import is_expert_folder, open_expert
from evoswarm.weights.folders import find_experts
from evoswarm.weights.kinds import kind_of
from evoswarm.weights.move import move_expert, require_same_vocabulary
from evoswarm.weights.pool import open_pool
from evoswarm.weights.words import listed


def port_pool(source: Path, output: Path, *, old: str, new: str) -> list[Path]:
    """Write one expert folder, or every expert of a folder of experts, for another base model; returns the folders.

    Args:
        source: an expert folder, or a folder of them.
        output: a folder that is empty or missing.
        old: the base model of the experts; a folder or a name on the hub.
        new: the other one.

    Raises:
        UserError: the base models differ in vocabulary or shapes, or an expert cannot be read.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; choose a new folder")
    require_same_vocabulary(old, new)
    alone = is_expert_folder(source)
    folders = [source] if alone else find_experts(source.resolve(), model=old).folders.values()
    require_same_shapes(folders, TransformersEngine(), old=old, new=new)
    if alone:
        return [port_expert(source, output, old=old, new=new)]
    return port_experts(source.resolve(), output, old=old, new=new)


def require_same_shapes(experts: Iterable[Path], engine: EngineConfig, *, old: str, new: str) -> None:
    """Check that experts of an old base model fit the new one.

    Raises:
        UserError: a tensor has another shape there, or is missing.
    """
    opened = [open_expert(folder, model=old) for folder in experts]
    if problems := engine.misfits(model=new, experts=opened):
        raise UserError(f"{listed(problems)}; experts can only be ported to a base model of the same shapes")


def port_experts(experts: Place | list[Place], output: Path, *, old: str, new: str) -> list[Path]:
    """Write the experts of a pool for another base model, each to a folder of its name in `output`."""
    found = find_experts(experts, model=old).folders
    return [port_expert(folder, output / name, old=old, new=new) for name, folder in found.items()]


def port_expert(source: Path, output: Path, *, old: str, new: str) -> Path:
    """Write one expert for another base model.

    WeGeFT generates its LoRA from the base model's weights, so it is the LoRA for the old base model that is ported.
    """
    expert = open_expert(source, model=old)
    kind = kind_of(expert.config) if expert.kind == "adapter" else None
    if kind is None or not kind.converter:
        return move_expert(source, output, old=old, new=new)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as work:
        (lora,) = export(source, Path(work) / "lora", model=old)
        return move_expert(lora, output, old=old, new=new)


def pool_of_one(expert: Path, *, model: str) -> PoolConfig:
    """A pool of one expert in which a coefficient multiplies what it changes: in product space, if it is a LoRA."""
    config = PoolConfig(experts=[expert.resolve()])
    lora = open_pool(config, model=model, alone=True).space is not None
    return config.with_(space="product") if lora else config
