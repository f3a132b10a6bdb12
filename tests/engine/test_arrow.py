"""Routing of tokens, compared with peft itself and with arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import ArrowConfig, create_arrow_model
from tiny_models import load, save_adapter, save_llama

from evoswarm.engine import TransformersEngine
from evoswarm.engine.arrow import ArrowEngine
from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import Pool, open_pool

PROMPTS = ["abc", "a longer prompt", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrow")
    save_llama(folder / "base")
    for seed in range(3):
        save_adapter(folder / "base", folder / "experts" / f"e{seed}", seed=seed, lora_alpha=8 * (seed + 1))
    return folder


def pool_of(folder: Path) -> Pool:
    return open_pool(PoolConfig(experts=folder / "experts"), model=str(folder / "base"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> ArrowEngine:
    return ArrowEngine(TransformersEngine(), model=str(folder / "base"), experts=pool_of(folder).experts)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_logits_and_answers_are_those_of_peft(folder: Path, engine: ArrowEngine, top_k: int) -> None:
    paths = [str(expert.path) for expert in pool_of(folder).experts]
    peft = create_arrow_model(load(folder / "base"), paths, ArrowConfig(top_k=top_k, rng_seed=0)).eval()
    engine.route(top_k)
    ids = engine.tokenizer(PROMPTS[1], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(engine.model(ids).logits, peft(ids).logits, rtol=0, atol=0)
        theirs = peft.generate(ids, do_sample=False, max_new_tokens=6)[:, ids.shape[1] :]
    text = engine.tokenizer.decode(theirs[0], skip_special_tokens=True)
    assert engine.generate([PROMPTS[1]], max_new_tokens=6) == [text]
    assert engine.generate(PROMPTS, max_new_tokens=6)[1] == text  # in a batch with padding


def test_a_token_goes_to_the_expert_with_the_nearest_direction(folder: Path, tmp_path: Path) -> None:
    """By hand, rank 1: a layer's output changes by s_e B_e A_e x of the expert e with the largest |A_e x| / |A_e|."""
    for seed in range(3):
        save_adapter(folder / "base", tmp_path / "experts" / f"e{seed}", seed=seed, r=1, lora_alpha=seed + 1)
    experts = open_pool(PoolConfig(experts=tmp_path / "experts"), model=str(folder / "base")).experts
    engine = ArrowEngine(TransformersEngine(), model=str(folder / "base"), experts=experts)
    engine.route(1)
    module = "model.layers.0.self_attn.q_proj"
    rows, columns = ([e.tensor(f"base_model.model.{module}.lora_{part}.weight") for e in experts] for part in "AB")
    tokens = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nearest = [int(np.argmax([abs((a @ x)[0]) / np.linalg.norm(a) for a in rows])) for x in tokens]
    wanted = [(e + 1) * columns[e] @ (rows[e] @ x) for e, x in zip(nearest, tokens, strict=True)]
    layer, x = engine.model.get_submodule(module), torch.tensor(tokens)[None]
    with torch.inference_mode():
        found = (layer(x) - layer.base_layer(x))[0].numpy()
    assert set(nearest) == {0, 1, 2}
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-4)


def test_experts_of_some_layers_only_are_refused(folder: Path, tmp_path: Path) -> None:
    for seed in range(2):
        save_adapter(folder / "base", tmp_path / "experts" / f"e{seed}", seed=seed, layers_to_transform=[0])
    pool = open_pool(PoolConfig(experts=tmp_path / "experts"), model=str(folder / "base"))
    with pytest.raises(UserError, match=r"do not adapt model\.layers\.1\.self_attn\.q_proj, and peft's arrow routes"):
        ArrowEngine(TransformersEngine(), model=str(folder / "base"), experts=pool.experts)
