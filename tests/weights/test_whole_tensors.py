"""A whole tensor of an expert (modules_to_save, embeddings, norms) is the base's tensor plus a difference."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny_models import load, save_adapter, save_llama

from evoswarm.compare.merging import dare_ties, merge, model_stock, ties
from evoswarm.engine.install import Installer
from evoswarm.errors import UserError
from evoswarm.rows import BasisVector, ExpertVector, NoiseVector, Row, SavedVector
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.device import DeviceMaterializer
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import save_vector

HEAD, NORM = "base_model.model.lm_head.weight", "base_model.model.model.norm.weight"
SPACES = pytest.mark.parametrize("space", ["factors", "product"])


def row(*terms: tuple[BasisVector | str, float]) -> Row:
    return Row(tuple((ExpertVector(v) if isinstance(v, str) else v, c) for v, c in terms))


def open_(folder: Path, base: Path, **settings: object) -> Pool:
    return open_pool(PoolConfig(experts=folder, **settings), model=str(base))


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    """Two adapters that hold the head and the last norm."""
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, modules_to_save=["lm_head", "norm"])
    return tmp_path / "pool"


def base_of(base: Path) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in load_file(base / "model.safetensors").items()}


def differences(pool: Pool, base: Path, key: str) -> dict[str, np.ndarray]:
    start = base_of(base)[key.removeprefix("base_model.model.")]
    return {expert.name: expert.tensor(key) - start for expert in pool.experts}


@SPACES
@pytest.mark.parametrize("mix", [{"a": 0.3, "b": 0.3}, {"a": 0.5, "b": 0.5}, {"a": 1.5, "b": 0.7}, {"b": -1.0}, {}])
def test_a_row_of_any_sum_is_the_base_plus_the_differences(
    folder: Path, tiny_llama: Path, space: str, mix: dict[str, float]
) -> None:
    pool = open_(folder, tiny_llama, space=space)
    for maker in (Materializer(pool), DeviceMaterializer(pool, device="cpu")):
        weights = maker.one(row(*mix.items()))
        for key in (HEAD, NORM):
            start = base_of(tiny_llama)[key.removeprefix("base_model.model.")]
            expected = start + sum((c * differences(pool, tiny_llama, key)[name] for name, c in mix.items()), 0 * start)
            np.testing.assert_allclose(weights[key], expected, atol=1e-6)


@SPACES
def test_the_base_in_the_pool_takes_the_rest(folder: Path, tiny_llama: Path, space: str) -> None:
    pool = open_(folder, tiny_llama, space=space, include_base=True)
    maker = Materializer(pool)
    half, same, zero = maker.all([row(("a", 0.5), ("base", 0.5)), row(("a", 0.5)), Row.one("base")])
    assert all(np.array_equal(half[name], same[name]) for name in half)
    assert np.array_equal(zero[HEAD], base_of(tiny_llama)["lm_head.weight"])
    model = load(tiny_llama)
    Installer(model, pool.adapter).install(zero)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), load(tiny_llama).parameters(), strict=True))


@SPACES
def test_noise_and_saved_noise_are_differences(folder: Path, tmp_path: Path, tiny_llama: Path, space: str) -> None:
    maker = Materializer(open_(folder, tiny_llama, space=space), root=tmp_path)
    noise = NoiseVector(1, 2, 3, 0.5, 0.1)
    save_vector(maker, row((noise, 1.0)), tmp_path / "noise.safetensors")
    start = base_of(tiny_llama)["lm_head.weight"]
    fresh, saved = maker.all([row((noise, 1.0)), row((SavedVector("noise.safetensors"), 1.0))])
    assert np.array_equal(fresh[HEAD], saved[HEAD])
    assert 0.05 < (fresh[HEAD] - start).std() < 0.1
    mixed = maker.one(row(("a", 0.4), (noise, 2.0)))[HEAD]
    delta = maker.pool.experts[0].tensor(HEAD) - start
    np.testing.assert_allclose(mixed, start + 0.4 * delta + 2 * (fresh[HEAD] - start), atol=1e-5)


def test_an_expert_without_the_tensor_leaves_it_as_it_is(folder: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, folder / "c", seed=5)
    pool = open_(folder, tiny_llama)
    assert pool.space_name == "product"
    weights = Materializer(pool).one(row(("a", 0.3), ("c", 0.7)))
    start, (a, *_) = base_of(tiny_llama)["lm_head.weight"], pool.experts
    expected = start + 0.3 * (a.tensor(HEAD) - start)
    np.testing.assert_allclose(weights[HEAD], expected, atol=1e-6)
    assert np.array_equal(Materializer(pool).one(Row.one("c"))[HEAD], base_of(tiny_llama)["lm_head.weight"])


def test_a_head_that_the_base_ties_to_its_embedding_is_a_difference_from_the_embedding(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", tied=True)
    assert "lm_head.weight" not in base_of(base)
    for seed, name in enumerate("ab"):
        save_adapter(base, tmp_path / "pool" / name, seed=seed, modules_to_save=["lm_head"])
    pool = open_(tmp_path / "pool", base)
    start = base_of(base)["model.embed_tokens.weight"]
    expected = start + 0.2 * (pool.experts[0].tensor(HEAD) - start)
    np.testing.assert_allclose(Materializer(pool).one(row(("a", 0.2)))[HEAD], expected, atol=1e-6)


@SPACES
def test_embeddings_that_peft_saves_with_an_adapter_are_differences(tmp_path: Path, space: str) -> None:
    base = save_llama(tmp_path / "base")
    key = "base_model.model.model.embed_tokens.weight"
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = load(base)
        model.get_input_embeddings().weight.data.add_(0.1 * torch.randn_like(model.get_input_embeddings().weight))
        peft = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        peft.save_pretrained(tmp_path / "pool" / name, save_embedding_layers=True)
    pool = open_(tmp_path / "pool", base, space=space)
    start = base_of(base)["model.embed_tokens.weight"]
    expected = start + sum(0.8 * (expert.tensor(key) - start) for expert in pool.experts)
    np.testing.assert_allclose(Materializer(pool).one(row(("a", 0.8), ("b", 0.8)))[key], expected, atol=1e-6)


def test_checkpoints_are_differences_from_the_base(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", seed=9)
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "pool" / name, seed=seed)
    pool = open_(tmp_path / "pool", base)
    weights = Materializer(pool).one(row(("a", 0.2), ("b", 0.1)))
    for name, start in base_of(base).items():
        a, b = (expert.tensor(name) for expert in pool.experts)
        np.testing.assert_allclose(weights[name], start + 0.2 * (a - start) + 0.1 * (b - start), atol=1e-6)


def test_a_base_that_is_needed_and_missing_is_one_line(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "pool" / name, seed=seed)
    (tmp_path / "none").mkdir()
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(tmp_path / "none"), check=False)
    assert Materializer(pool).one(row(("a", 0.5), ("b", 0.5)))
    with pytest.raises(UserError, match="has no safetensors files, which are needed to mix tensors"):
        Materializer(pool).one(row(("a", 0.5)))


@SPACES
@pytest.mark.parametrize(
    "combine",
    [
        partial(ties, density=0.5, scale=1.5),
        partial(dare_ties, density=0.5, scale=1.0, seed=3),
        model_stock,
    ],
)
def test_merging_methods_take_the_differences_as_task_vectors(
    folder: Path, tiny_llama: Path, space: str, combine: partial[torch.Tensor]
) -> None:
    pool = open_(folder, tiny_llama, space=space)
    merged = merge(pool, pool.names, combine)
    for key in (HEAD, NORM):
        tasks = [torch.from_numpy(delta) for delta in differences(pool, tiny_llama, key).values()]
        start = base_of(tiny_llama)[key.removeprefix("base_model.model.")]
        np.testing.assert_allclose(merged[key], start + combine(key, tasks).numpy(), atol=1e-6)
