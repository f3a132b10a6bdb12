"""Merges that are no rows: small cases by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_adapter

from evoswarm.compare.merging import dare_ties, merge, model_stock, save_member, slerp, ties
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import lora_modules, scaling
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors

A, B = torch.tensor([4.0, -1.0, 3.0, 0.5]), torch.tensor([2.0, 1.0, -5.0, 0.25])


def test_ties_keeps_the_largest_elects_signs_and_averages_those_that_agree():
    # Half of each: A keeps 4 and 3, B keeps 2 and -5. Signs: +, 0, -. Third: only B agrees with 3 - 5 < 0.
    assert ties("w", [A, B], density=0.5, scale=1.0).tolist() == [3.0, 0.0, -5.0, 0.0]
    assert ties("w", [A, B], density=0.5, scale=1.5).tolist() == [4.5, 0.0, -7.5, 0.0]


def test_dare_rescales_what_it_keeps_and_depends_on_seed_and_tensor_alone():
    ones = [torch.ones(20_000)]
    merged = dare_ties("w", ones, density=0.25, scale=1.0, seed=3)
    assert set(merged.tolist()) == {0.0, 4.0} and merged.mean() == pytest.approx(1.0, abs=0.05)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    again = dare_ties("w", ones, density=0.25, scale=1.0, seed=3)
    assert torch.equal(merged, again) and torch.equal(torch.get_rng_state(), before)
    for other in (
        dare_ties("w", ones, density=0.25, scale=1.0, seed=4),
        dare_ties("v", ones, density=0.25, scale=1.0, seed=3),
    ):
        assert not torch.equal(merged, other)


def test_slerp_goes_along_the_arc():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(slerp("w", [x, y], t=0.5), torch.tensor([0.5**0.5, 0.5**0.5]))
    torch.testing.assert_close(slerp("w", [x, y], t=0.25).norm(), torch.tensor(1.0))
    torch.testing.assert_close(slerp("w", [x, 3 * x], t=0.25), torch.tensor([1.5, 0.0]))
    assert slerp("w", [torch.zeros(2), y], t=0.5).tolist() == [0.0, 0.5]


def test_model_stock_is_the_mean_of_equals_and_the_base_of_strangers():
    torch.testing.assert_close(model_stock("w", [A, A, A]), A)
    assert not model_stock("w", [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]).any()
    # cos 0.5, two experts: t = 2 / 3
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 3**0.5 / 2])
    torch.testing.assert_close(model_stock("w", [x, y]), 2 / 3 * (x + y) / 2)


@pytest.fixture
def checkpoints(tmp_path: Path) -> tuple[Pool, Path]:
    """A base and two checkpoints that differ from it by A and B."""
    base = np.array([10.0, 20.0, 30.0, 40.0], np.float32)
    for name, delta in {"base": 0 * A, "pool/a": A, "pool/b": B}.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        specs = [TensorSpec("steps", (2,), "I64"), TensorSpec("w.weight", (4,), "F32")]
        tensors = [("steps", np.array([1, 2])), ("w.weight", base + delta.numpy())]
        write_safetensors(folder / "model.safetensors", specs, tensors)
    return open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(tmp_path / "base")), tmp_path / "base"


def test_checkpoints_merge_by_their_differences_to_the_base(checkpoints: tuple[Pool, Path]) -> None:
    pool, _ = checkpoints
    merged = merge(pool, pool.names, partial(ties, density=0.5, scale=1.0))
    assert merged["w.weight"].tolist() == [13.0, 20.0, 25.0, 40.0]
    assert merged["steps"].tolist() == [1, 2]


def test_a_merge_is_saved_as_an_expert_with_its_lineage(checkpoints: tuple[Pool, Path], tmp_path: Path) -> None:
    pool, base = checkpoints
    merged = merge(pool, pool.names, model_stock)
    save_member(pool, merged, tmp_path / "members" / "stock", base=str(base), lineage={"method": "model_stock"})
    member = open_pool(PoolConfig(experts=[tmp_path / "members" / "stock"]), model=str(base), alone=True)
    assert member.flat("stock", "w.weight").tolist() == merged["w.weight"].tolist()
    lineage = json.loads((tmp_path / "members" / "stock" / "lineage.json").read_text())
    assert lineage["method"] == "model_stock" and lineage["pool"] == pool.hashes


def test_products_are_merged_as_dense_matrices(tmp_path: Path, tiny_llama: Path) -> None:
    forms: dict[str, dict[str, Any]] = {"a": {"r": 2}, "b": {"r": 3, "target_modules": ["v_proj", "down_proj"]}}
    for seed, (name, form) in enumerate(forms.items()):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, **form)
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(tiny_llama))
    for combine in (partial(ties, density=0.3, scale=1.5), partial(slerp, t=0.25), model_stock):
        merged = lora_modules(merge(pool, pool.names, combine))
        for module, pair in merged.items():
            tasks = [_dense(expert, module, pair.b.shape[0], pair.a.shape[1]) for expert in pool.experts]
            torch.testing.assert_close(torch.from_numpy(pair.b @ pair.a), combine(module, tasks), rtol=1e-5, atol=1e-5)


def _dense(expert: Expert, module: str, rows: int, columns: int) -> torch.Tensor:
    pairs = lora_modules(expert.tensors())
    if module not in pairs:
        return torch.zeros(rows, columns)
    return scaling(expert.config, module) * torch.from_numpy(pairs[module].b @ pairs[module].a)
