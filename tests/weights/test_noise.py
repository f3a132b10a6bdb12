"""Mutation noise: its distribution, and that it can be regenerated anywhere in any order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from weight_helpers import pool_of, same_bytes, write_checkpoint

from evoswarm.rows import ExpertVector, NoiseVector, Row, SavedVector
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.noise import CHUNK, noise_chunk
from evoswarm.weights.save import save_vector

GOLDEN = [
    0.0,
    0.04417480155825615,
    0.012797215953469276,
    -0.024685440585017204,
    -0.02101108990609646,
    0.0772252306342125,
]
NOISE = NoiseVector(seed=7, generation=4, particle=2, gene_rate=0.1, sigma=0.05)


def draw(vector: NoiseVector, *, tensor: str = "w", chunks: int = 20) -> np.ndarray:
    return np.concatenate([noise_chunk(vector, tensor, i, CHUNK) for i in range(chunks)])


def test_chunks_are_the_same_in_any_order() -> None:
    forward = {i: noise_chunk(NOISE, "w", i, CHUNK).tobytes() for i in range(4)}
    backward = {i: noise_chunk(NOISE, "w", i, CHUNK).tobytes() for i in reversed(range(4))}
    assert forward == backward and len(set(forward.values())) == 4


def test_genes_mutate_at_the_gene_rate() -> None:
    noise = draw(NOISE)
    touched = np.count_nonzero(noise) / noise.size
    assert abs(touched - 0.1) < 5 * np.sqrt(0.1 * 0.9 / noise.size)
    assert not noise_chunk(replace(NOISE, gene_rate=0.0), "w", 0, CHUNK).any()
    assert noise_chunk(replace(NOISE, gene_rate=1.0), "w", 0, CHUNK).all()


def test_mutations_are_normal_with_the_given_sigma() -> None:
    noise = draw(NOISE)
    values = noise[noise != 0]
    assert stats.kstest(values, "norm", args=(0, 0.05)).pvalue > 1e-3
    assert values.std() == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize(
    "other", [{"seed": 8}, {"generation": 5}, {"particle": 3}, {"seed": 4, "generation": 7}, {"seed": 7 + 2**32}]
)
def test_noise_differs_between_seeds_generations_and_particles(other: dict[str, int]) -> None:
    left, right = (draw(replace(v, gene_rate=1.0)) for v in (NOISE, replace(NOISE, **other)))
    assert abs(np.corrcoef(left, right)[0, 1]) < 5 / np.sqrt(left.size)


def test_noise_is_not_correlated_between_tensors_or_chunks() -> None:
    full = replace(NOISE, gene_rate=1.0)
    names = ["layers.0.lora_A", "layers.0.lora_B", "layers.1.lora_A", "layers.10.lora_A"]
    lines = np.stack([draw(full, tensor=name, chunks=4) for name in names])
    chunks = draw(full).reshape(20, CHUNK)
    for block in (lines, chunks):
        off = np.corrcoef(block)[~np.eye(len(block), dtype=bool)]
        assert np.abs(off).max() < 5 / np.sqrt(block.shape[1])


def test_the_noise_stream_is_unchanged_from_saved_runs() -> None:
    chunk = noise_chunk(replace(NOISE, gene_rate=0.5), "w", 1, 6)
    assert chunk.tolist() == pytest.approx(GOLDEN, abs=0)


@pytest.fixture
def maker(tmp_path: Path) -> Materializer:
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        tensors = {"v": rng.standard_normal(40000), "w": rng.standard_normal((3, 5))}
        write_checkpoint(tmp_path / name, {k: t.astype(np.float16) for k, t in tensors.items()})
    return Materializer(pool_of(tmp_path), root=tmp_path)


def test_a_saved_noise_row_equals_the_noise_to_fp32_rounding(maker: Materializer) -> None:
    second = replace(NOISE, particle=9)
    noisy = Row(((NOISE, 0.5), (second, -1.5)))
    assert maker.root is not None
    save_vector(maker, noisy, maker.root / "basis" / "one.safetensors")
    saved = SavedVector("basis/one.safetensors")
    assert same_bytes(maker.one(Row(((saved, 1.0),))), maker.one(noisy))
    expert = ExpertVector("a")
    left = maker.one(Row(((expert, 1.0), (saved, 1.0))))
    right = maker.one(Row(((expert, 1.0), (NOISE, 0.5), (second, -1.5))))
    for name in left:
        np.testing.assert_allclose(left[name].astype(float), right[name].astype(float), rtol=2**-10, atol=1e-7)


def test_noise_does_not_depend_on_the_tensors_position_in_the_pool(maker: Materializer) -> None:
    row = Row(((NOISE, 1.0),))
    alone = dict(maker.stream([row], parts=maker.pool.parts[1:]))
    ((name, array),) = alone.items()
    assert array[0].tobytes() == maker.one(row)[name].tobytes()
