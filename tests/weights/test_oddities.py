"""Experts that are not experts are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_adapters import FILE, as_mlx, rename
from safetensors.torch import load_file, save_file
from tiny_models import save_adapter, save_llama
from weight_helpers import edit_config

from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool

MakePool = Callable[[], Path]
Tensors = dict[str, torch.Tensor]


def change(expert: Path, edit: Callable[[str, torch.Tensor], torch.Tensor | None], file: str = FILE) -> None:
    tensors = {name: edit(name, tensor) for name, tensor in load_file(expert / file).items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, expert / file)


def warnings(pool: Path, model: Path) -> list[str]:
    return open_pool(PoolConfig(experts=pool), model=str(model)).warnings


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_an_adapter_without_an_effect_is_named(pool_folder: MakePool, tiny_llama: Path, factor: str) -> None:
    folder = pool_folder()
    for name in "bc":
        change(folder / name, lambda name, tensor: tensor * 0 if factor in name else tensor)
    assert "b, c: is the base model itself, because all its B are zero; train it, or save it again" in warnings(
        folder, tiny_llama
    )


def test_an_adapter_with_some_zero_factors_is_not_named(pool_folder: MakePool, tiny_llama: Path) -> None:
    folder = pool_folder()
    change(folder / "b", lambda name, tensor: tensor * 0 if "layers.0" in name and "lora_B" in name else tensor)
    assert warnings(folder, tiny_llama) == []


def half_alpha(expert: Path) -> None:
    change(expert, lambda name, tensor: tensor * 2 if "lora_B" in name else tensor)
    edit_config(expert, lora_alpha=4)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda expert: None,
        lambda expert: change(expert, lambda name, tensor: tensor.to(torch.bfloat16)),
        rename(lambda name: name.removeprefix("base_model.model.")),
        half_alpha,
        as_mlx,
    ],
    ids=["copied", "in bfloat16", "renamed", "with another alpha", "from mlx-lm"],
)
def test_the_same_expert_twice_is_named(
    pool_folder: MakePool, tiny_llama: Path, disguise: Callable[[Path], None]
) -> None:
    folder = pool_folder()
    shutil.copytree(folder / "b", folder / "d")
    disguise(folder / "d")
    assert "d: is the same expert as b" in warnings(folder, tiny_llama)


def test_experts_that_differ_in_one_value_are_not_the_same(pool_folder: MakePool, tiny_llama: Path) -> None:
    folder = pool_folder()
    shutil.copytree(folder / "b", folder / "d")
    change(folder / "d", lambda name, tensor: tensor.index_fill(0, torch.tensor([1]), 0.5))
    assert warnings(folder, tiny_llama) == []


def test_experts_of_different_ranks_are_not_the_same(tmp_path: Path, tiny_llama: Path) -> None:
    for rank in (1, 2, 4):
        save_adapter(tiny_llama, tmp_path / str(rank), seed=0, r=rank, lora_alpha=rank)
    assert warnings(tmp_path, tiny_llama) == []


def test_missing_layers_that_target_modules_names_are_named(pool_folder: MakePool, tiny_llama: Path) -> None:
    folder = pool_folder()
    for name in "abc":
        change(folder / name, lambda name, tensor: None if "layers.1.self_attn" in name else tensor)
    (line,) = warnings(folder, tiny_llama)
    assert line == (
        "a, b, c: has no tensors for 2 modules that its target_modules name "
        "(model.layers.1.self_attn.q_proj, model.layers.1.self_attn.v_proj)"
    )


def test_a_missing_last_layer_needs_the_base_model(pool_folder: MakePool, tiny_llama: Path, tmp_path: Path) -> None:
    folder = pool_folder()
    for name in "abc":
        change(folder / name, lambda name, tensor: None if "layers.1." in name else tensor)
    assert "has no tensors for 3 modules" in warnings(folder, tiny_llama)[0]


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q_proj|v_proj)"},
        {"layers_to_transform": [1]},
        {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["v_proj"]},
    ],
)
def test_adapters_that_peft_made_miss_nothing(tmp_path: Path, tiny_llama: Path, lora: dict[str, object]) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / name, seed=seed, **lora)
    assert warnings(tmp_path, tiny_llama) == []


def test_a_checkpoint_that_is_the_base_model_is_named(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        save_llama(tmp_path / "pool" / name, seed=seed)
    base = Path(shutil.copytree(tmp_path / "pool" / "b", tmp_path / "model"))
    assert warnings(tmp_path / "pool", base) == ["b: is the base model itself"]
