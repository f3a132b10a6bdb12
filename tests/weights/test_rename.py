"""Experts that name one module differently are mixed as one module, under the name that the loaded model has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, load_architecture, make_config, save_architecture
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evoswarm.engine.check import misfits
from evoswarm.engine.install import Installer
from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import save_expert

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])
FILE = "adapter_model.safetensors"
MIX = Row(((ExpertVector("a"), 0.7), (ExpertVector("b"), -0.4)))


def save_adapter(base: Path, folder: Path, *, seed: int, **lora: object) -> None:
    """A LoRA with random trained tensors on the model as it is loaded now."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | lora
    model = get_peft_model(load_architecture(base), LoraConfig(**settings))
    random = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=random))
    model.save_pretrained(folder)


def respell(folder: Path, spelling: Callable[[str], str]) -> None:
    tensors = load_file(folder / FILE)
    save_file({spelling(name): tensor for name, tensor in tensors.items()}, folder / FILE)


def of_transformers_4(name: str) -> str:
    return name.replace("model.model.language_model.", "model.language_model.model.")


def of_the_text_model(name: str) -> str:
    return name.replace("model.model.language_model.", "model.model.")


def weight_of(base: Path, folder: Path, parameter: str) -> np.ndarray:
    """A weight [out, in] of the adapted model, by peft."""
    model = PeftModel.from_pretrained(load_architecture(base), folder).merge_and_unload()
    return model.get_parameter(parameter).detach().numpy()


def mixed_logits(pool: Pool, base: Path) -> torch.Tensor:
    """The logits of the mix in the engine."""
    model = load_architecture(base)
    Installer(model, pool.adapter).install(Materializer(pool).one(MIX))
    with torch.no_grad():
        return model(IDS).logits


def saved_logits(pool: Pool, base: Path, folder: Path) -> torch.Tensor:
    """The logits of the mix as it is saved, by peft."""
    save_expert(Materializer(pool), MIX, folder, base=str(base))
    with torch.no_grad():
        return PeftModel.from_pretrained(load_architecture(base), folder).eval()(IDS).logits


@pytest.mark.parametrize("spelling", [of_transformers_4, of_the_text_model])
@pytest.mark.parametrize("space", ["product", "factors"])
def test_two_names_of_one_module_are_one_module_of_the_mix(
    tmp_path: Path, space: str, spelling: Callable[[str], str]
) -> None:
    base, experts = save_architecture("gemma3", tmp_path / "base"), tmp_path / "pool"
    lora = {"rank_pattern": {"model.language_model.layers.0.self_attn.q_proj": 2}, "modules_to_save": ["norm"]}
    for seed, name in enumerate("abc"):
        save_adapter(base, experts / name, seed=seed, **lora)
    want = open_pool(PoolConfig(experts=[experts / "a", experts / "b"], space=space), model=str(base))
    expected = mixed_logits(want, base)
    respell(experts / "b", spelling)
    config = json.loads((experts / "b" / "adapter_config.json").read_text())
    config["rank_pattern"] = {spelling("base_model.model." + key)[17:]: r for key, r in config["rank_pattern"].items()}
    (experts / "b" / "adapter_config.json").write_text(json.dumps(config))
    for order in (["a", "b"], ["b", "a"]):
        places = [experts / name for name in order]
        pool = open_pool(PoolConfig(experts=places, space=space), model=str(base))
        assert pool.warnings == [] and misfits(str(base), pool.experts, trust_remote_code=False, separates=True) == []
        assert len(pool.layout) == len(want.layout)
        assert torch.allclose(mixed_logits(pool, base), expected, atol=1e-6, rtol=0)
        assert torch.allclose(saved_logits(pool, base, tmp_path / "best"), expected, atol=1e-6, rtol=0)


def test_a_text_models_whole_tensors_are_differences_from_those_in_an_image_text_checkpoint(tmp_path: Path) -> None:
    """As trained with Gemma3ForCausalLM on a checkpoint that also reads images."""
    base, text = save_architecture("gemma3", tmp_path / "base"), tmp_path / "text"
    config = make_config(ARCHITECTURES["gemma3"]).get_text_config()
    model = AutoModelForCausalLM.from_config(config)
    inside = load_architecture(base).model.language_model.state_dict()
    model.model.load_state_dict(inside)
    model.save_pretrained(text)
    save = {"modules_to_save": ["embed_tokens", "norm"], "target_modules": ["q_proj"]}
    for seed, name in enumerate("ab"):
        save_adapter(text, tmp_path / "pool" / name, seed=seed, **save)
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))
    assert misfits(str(base), pool.experts, trust_remote_code=False, separates=True) == []
    engine = load_architecture(base)
    Installer(engine, pool.adapter).install(Materializer(pool).one(MIX))
    merged = engine.model.language_model
    for parameter in ("embed_tokens.weight", "norm.weight", "layers.1.self_attn.q_proj.weight"):
        one, two = (weight_of(text, tmp_path / "pool" / name, f"model.{parameter}") for name in "ab")
        origin = inside[parameter].numpy()
        expected = origin + 0.7 * (one - origin) - 0.4 * (two - origin)
        assert np.allclose(merged.get_parameter(parameter).detach().numpy(), expected, atol=1e-6), parameter
    with torch.no_grad():
        assert torch.allclose(saved_logits(pool, base, tmp_path / "best"), engine(IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "router", "published"),
    [("mixtral", "mlp.gate", "block_sparse_moe.gate"), ("qwen3-moe", "mlp.gate", "mlp.gate")],
)
def test_a_whole_router_and_whole_fused_experts_are_differences(
    tmp_path: Path, name: str, router: str, published: str
) -> None:
    base = save_architecture(name, tmp_path / "base")
    model = load_architecture(base)
    whole = [n for n, _ in model.named_parameters() if f"1.{router}." in n or "1.mlp.experts." in n]
    assert len(whole) == 3
    random = torch.Generator().manual_seed(1)
    for expert in "ab":
        save_adapter(base, tmp_path / "pool" / expert, seed=ord(expert), target_modules=["q_proj"])
        tensors = load_file(tmp_path / "pool" / expert / FILE)
        for parameter in whole:
            start = model.get_parameter(parameter).detach()
            tensors[f"base_model.model.{parameter}"] = start + torch.randn(start.shape, generator=random)
        save_file(tensors, tmp_path / "pool" / expert / FILE)
    respell(tmp_path / "pool" / "b", lambda key: re.sub(re.escape(router) + "$", published, key))
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))
    weights = Materializer(pool).one(MIX)
    for parameter in whole:
        start = model.get_parameter(parameter).detach().numpy()
        a, b = (expert.tensor(f"base_model.model.{parameter}") for expert in pool.experts)
        expected = start + 0.7 * (a - start) - 0.4 * (b - start)
        assert np.allclose(weights[f"base_model.model.{parameter}"], expected, atol=1e-5), parameter


def test_checkpoints_that_name_their_tensors_differently_are_mixed(tmp_path: Path) -> None:
    base = save_architecture("gemma3", tmp_path / "base")
    for seed, name in enumerate("abc", start=1):
        save_architecture("gemma3", tmp_path / "pool" / name, seed=seed)
    same = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))
    expected = Materializer(same).one(MIX)
    file = tmp_path / "pool" / "b" / "model.safetensors"
    tensors = load_file(file)
    renamed = {re.sub(r"^language_model\.model", "model.language_model", name): t for name, t in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, file)
    found = Materializer(open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))).one(MIX)
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
