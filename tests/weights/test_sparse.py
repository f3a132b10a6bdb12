"""Sparsified experts: which scalars stay, and what they add to the base model."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from weight_helpers import pool_of, write_checkpoint, write_lora

from evoswarm.rows import ExpertVector, NoiseVector, Row, SparseVector
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.noise import CHUNK, noise_chunk
from evoswarm.weights.pool import open_pool
from evoswarm.weights.sparse import mask_chunk

SPARSE = SparseVector("a", seed=7, copy=0, density=0.25)
GOLDEN = [4, 5, 7, 8, 11, 15, 18]
"""Of the first 24 scalars, those that stay."""


def mask(vector: SparseVector, tensor: str = "w", chunk: int = 0) -> np.ndarray:
    return mask_chunk(vector, tensor, chunk, CHUNK)


def test_a_share_of_scalars_stays_and_is_divided_by_the_share() -> None:
    values = mask(SPARSE)
    assert set(values.tolist()) == {0.0, 4.0}
    assert abs((values > 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / CHUNK)
    assert (mask(replace(SPARSE, density=1.0)) == 1).all()


@pytest.mark.parametrize("other", [{"seed": 8}, {"copy": 1}, {"name": "b"}])
def test_masks_differ_between_seeds_copies_and_experts(other: dict[str, object]) -> None:
    assert abs(np.corrcoef(mask(SPARSE), mask(replace(SPARSE, **other)))[0, 1]) < 5 / np.sqrt(CHUNK)


def test_masks_differ_between_tensors_and_chunks_and_are_not_those_of_noise() -> None:
    noise = noise_chunk(NoiseVector(seed=7, generation=0, particle=0, gene_rate=0.25, sigma=1.0), "w", 0, CHUNK) != 0
    lines = np.stack([mask(SPARSE), mask(SPARSE, "v"), mask(SPARSE, chunk=1), noise])
    off = np.corrcoef(lines)[~np.eye(4, dtype=bool)]
    assert np.abs(off).max() < 5 / np.sqrt(CHUNK)


def test_the_masks_are_unchanged_from_saved_runs() -> None:
    assert np.flatnonzero(mask(SPARSE)[:24]).tolist() == GOLDEN


def test_the_mask_is_on_the_difference_from_the_base(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base, a, b = ({"w": rng.standard_normal(3 * CHUNK).astype(np.float32)} for _ in range(3))
    write_checkpoint(tmp_path / "base", base)
    for name, tensors in (("a", a), ("b", b)):
        write_checkpoint(tmp_path / "pool" / name, tensors)
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(tmp_path / "base"))
    row = Row(((SPARSE, 0.5), (ExpertVector("b"), 0.75)))
    kept = np.concatenate([mask(SPARSE, chunk=c) for c in range(3)])
    expected = base["w"] + 0.5 * kept * (a["w"] - base["w"]) + 0.75 * (b["w"] - base["w"])
    np.testing.assert_allclose(Materializer(pool).one(row)["w"], expected, atol=1e-5)


@pytest.mark.parametrize("space", ["factors", "product"])
def test_only_b_of_a_lora_is_masked(tmp_path: Path, space: str) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        shapes = {"model.q_proj.lora_A.weight": (4, 30), "model.q_proj.lora_B.weight": (20, 4)}
        tensors = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
        write_lora(tmp_path / "pool" / name, tensors, lora_alpha=4)
    pool = pool_of(tmp_path / "pool", space=space)
    whole, sparse = Materializer(pool).all([Row.one("a"), Row(((SPARSE, 1.0),))])
    a, b = sorted(whole)
    assert sparse[a].tobytes() == whole[a].tobytes()
    ratio = sparse[b] / whole[b]
    assert set(np.unique(ratio.round(5))) == {0.0, 4.0}


def test_a_sparsified_expert_needs_memory_for_chunks_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        write_checkpoint(tmp_path / "pool" / name, {"w": rng.standard_normal(100 * CHUNK).astype(np.float32)})
    maker, row = Materializer(pool_of(tmp_path / "pool")), Row(((SPARSE, 0.5), (ExpertVector("b"), 0.5)))
    result = maker.all([row])
    tracemalloc.start()
    maker.all([row], into=result)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 4 * CHUNK


def test_a_recipe_names_its_masks() -> None:
    row = Row(((ExpertVector("a"), 0.6), (SPARSE, 0.3), (replace(SPARSE, copy=1), 0.1)))
    assert Row.from_list(row.to_list()) == row
    assert row.experts == {"a": 0.6, "a[mask 0]": 0.3, "a[mask 1]": 0.1}
