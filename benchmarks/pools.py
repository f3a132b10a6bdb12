"""Pools of toy experts for hard cases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from evoswarm.toy import world
from evoswarm.toy.skills import FACTS, SKILLS


def strangers(folder: Path) -> None:
    """The toy experts without those of facts."""
    for skill in SKILLS.keys() - FACTS.keys():
        shutil.copytree(world() / "experts" / skill, folder / skill)


def useless(folder: Path) -> None:
    """The toy experts, and one useless expert for each."""
    with_useless(world() / "experts", folder)


def twenty(folder: Path) -> None:
    """Two experts per skill: one with the common first A, one with an A of its own."""
    for skill in SKILLS:
        shutil.copytree(world() / "experts" / skill, folder / skill)
        shutil.copytree(world() / "unrelated" / skill, folder / f"{skill}-2")


def forty(folder: Path) -> None:
    """`twenty`, and one useless expert for each."""
    with_useless(make_pool("twenty", folder.parent), folder)


def with_useless(pool: Path, folder: Path) -> None:
    """The experts of a pool, and one useless expert for each."""
    for expert in sorted(pool.iterdir()):
        shutil.copytree(expert, folder / expert.name)
        shuffle(expert, folder / f"useless-{expert.name}")


def shuffle(source: Path, folder: Path) -> None:
    """A useless copy of an expert: the entries of every B in random order, so that its norms stay the same."""
    shutil.copytree(source, folder)
    path, rng = folder / "adapter_model.safetensors", np.random.default_rng(0)
    tensors = {name: np.array(values) for name, values in sorted(load_file(path).items())}
    for name, values in tensors.items():
        if "lora_B" in name:
            tensors[name] = rng.permutation(values.ravel()).reshape(values.shape)
    save_file(tensors, path, metadata={"format": "pt"})


POOLS: dict[str, Callable[[Path], None]] = {maker.__name__: maker for maker in (strangers, useless, twenty, forty)}
SHIPPED = ("experts", "unrelated")


def make_pool(name: str, folder: Path) -> Path:
    """The folder of a pool, made in `folder` unless the toy world has it or it was made before."""
    if name in SHIPPED:
        return world() / name
    place, unfinished = folder / name, folder / f"{name}.unfinished"
    if not place.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        POOLS[name](unfinished)
        unfinished.rename(place)
    return place
