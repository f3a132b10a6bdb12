"""Installed weights are what peft merges, and the base comes back bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import VARIANTS, Weights, config_of, weights_of
from peft import PeftModel
from tiny_models import load, save_adapter, save_llama

from evoswarm.engine.install import Installer
from evoswarm.errors import UserError

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def state(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


@pytest.fixture(scope="module")
def biased_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("biased") / "llama", attention_bias=True, mlp_bias=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_installing_equals_what_peft_merges(biased_llama: Path, tmp_path: Path, variant: str) -> None:
    save_adapter(biased_llama, tmp_path, **VARIANTS[variant])
    merged = PeftModel.from_pretrained(load(biased_llama), tmp_path).merge_and_unload()
    model = load(biased_llama)
    before = model.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone()
    Installer(model, config_of(tmp_path)).install(weights_of(tmp_path))
    expected = merged.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6, msg=name)
    assert not torch.equal(before, model.state_dict()["model.layers.0.self_attn.q_proj.weight"])


@pytest.mark.parametrize("targets", [["c_attn", "c_proj"], ["c_attn", "c_proj", "c_fc", "wte"]])
def test_layers_of_gpt2_that_are_stored_the_other_way_round_are_merged(
    tiny_gpt2: Path, tmp_path: Path, targets: list[str]
) -> None:
    adapted = save_adapter(tiny_gpt2, tmp_path, target_modules=targets)
    model = load(tiny_gpt2)
    Installer(model, config_of(tmp_path)).install(weights_of(tmp_path))
    torch.testing.assert_close(logits(model), logits(adapted), rtol=1e-5, atol=1e-5)


def test_conv1d_and_linear_layers_may_be_adapted_together(tiny_gpt2: Path, tmp_path: Path) -> None:
    adapted = save_adapter(tiny_gpt2, tmp_path, target_modules=["c_proj", "lm_head"])
    assert config_of(tmp_path)["fan_in_fan_out"] is False  # what peft writes is not true of every layer
    model = load(tiny_gpt2)
    Installer(model, config_of(tmp_path)).install(weights_of(tmp_path))
    torch.testing.assert_close(logits(model), logits(adapted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    ],
)
def test_a_model_with_a_tied_head_answers_as_the_adapter_that_was_trained(tmp_path: Path, lora: dict[str, Any]) -> None:
    base = save_llama(tmp_path / "base", tied=True)
    adapted = save_adapter(base, tmp_path / "adapter", **lora)
    model = load(base)
    untouched = logits(model)
    installer = Installer(model, config_of(tmp_path / "adapter"))
    weights = weights_of(tmp_path / "adapter")
    installer.install(weights)
    once = logits(model)
    torch.testing.assert_close(once, logits(adapted), rtol=1e-5, atol=1e-5)
    installer.install(None)
    assert torch.equal(logits(model), untouched)
    installer.install(weights)
    assert torch.equal(logits(model), once)


def test_a_tied_checkpoint_may_name_its_head_or_not(tmp_path: Path) -> None:
    base, other = (save_llama(tmp_path / str(seed), seed=seed, tied=True) for seed in (0, 1))
    weights = weights_of(other)
    assert "lm_head.weight" not in weights
    model = load(base)
    untouched = state(model)
    installer = Installer(model, None)
    installer.install(weights)
    expected = logits(load(other))
    assert torch.equal(logits(model), expected)
    installer.install(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    assert torch.equal(logits(model), expected)
    installer.install(None)
    assert state(model) == untouched


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_base_comes_back_bit_for_bit_after_any_installs(
    tiny_llama: Path, adapters: Path, dtype: torch.dtype
) -> None:
    model = load(tiny_llama, dtype=dtype)
    untouched = state(model)
    installer = Installer(model, config_of(adapters / "a"))
    a, b = weights_of(adapters / "a"), weights_of(adapters / "b")
    seen = {}
    for name, weights in [("a", a), ("b", b), ("a", a), ("base", None), ("b", b), ("a", a), ("base", None)]:
        installer.install(weights)
        assert seen.setdefault(name, state(model)) == state(model)
    assert seen["base"] == untouched and len(set(map(str, seen.values()))) == 3


def test_a_bf16_base_gets_the_fp32_merge_rounded_once(tiny_llama: Path, adapters: Path) -> None:
    model = load(tiny_llama, dtype=torch.bfloat16)
    start = model.state_dict()["model.layers.0.self_attn.q_proj.weight"].float()
    weights = weights_of(adapters / "a")
    Installer(model, config_of(adapters / "a")).install(weights)
    a, b = (torch.from_numpy(weights[f"{Q}.lora_{x}.weight"].copy()) for x in "AB")
    expected = (start + 2.0 * (b @ a)).bfloat16()
    assert torch.equal(model.state_dict()["model.layers.0.self_attn.q_proj.weight"], expected)


def test_a_checkpoint_replaces_every_weight_and_the_base_comes_back(tiny_llama: Path, tmp_path: Path) -> None:
    other = save_llama(tmp_path / "other", seed=5)
    model = load(tiny_llama)
    untouched = state(model)
    installer = Installer(model, None)
    installer.install(weights_of(other))
    assert state(model) == state(load(other)) != untouched
    installer.install(None)
    assert state(model) == untouched


def renamed(weights: Weights) -> Weights:
    return {name.replace("q_proj", "query"): array for name, array in weights.items()}


def narrow(weights: Weights) -> Weights:
    return weights | {f"{Q}.lora_A.weight": weights[f"{Q}.lora_A.weight"][:, :-1]}


def uneven(weights: Weights) -> Weights:
    return weights | {f"{Q}.lora_A.weight": weights[f"{Q}.lora_A.weight"][:-1]}


def half(weights: Weights) -> Weights:
    return {name: array for name, array in weights.items() if name != f"{Q}.lora_B.weight"}


def extra(weights: Weights) -> Weights:
    return weights | {"base_model.model.model.layers.9.bias": np.ones(3, np.float32)}


def bias_of_b(weights: Weights) -> Weights:
    return weights | {f"{Q}.lora_B.bias": np.ones(64, np.float32)}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (renamed, r"self_attn\.query\.weight is not in the base model; check `model`"),
        (narrow, r"q_proj\.weight is \[64, 63\], the base model's is \[64, 64\]"),
        (uneven, "which do not multiply"),
        (half, "has no lora_B"),
        (extra, r"layers\.9\.bias is not in the base model"),
        (bias_of_b, r"lora_B\.bias is not in the base model"),
    ],
)
def test_a_failed_install_is_a_user_error_and_leaves_the_model_usable(
    tiny_llama: Path, adapters: Path, damage: Any, reason: str
) -> None:
    model = load(tiny_llama)
    untouched = state(model)
    installer = Installer(model, config_of(adapters / "a"))
    a, b = weights_of(adapters / "a"), weights_of(adapters / "b")
    installer.install(a)
    expected = state(model)
    with pytest.raises(UserError, match=reason):
        installer.install(damage(b))
    installer.install(a)
    assert state(model) == expected
    installer.install(None)
    assert state(model) == untouched


def test_installing_does_not_change_the_weights_that_were_given(tiny_llama: Path, adapters: Path) -> None:
    weights = {name: array.copy() for name, array in weights_of(adapters / "a").items()}
    Installer(load(tiny_llama), config_of(adapters / "a")).install(weights)
    assert all(np.array_equal(weights[name], array) for name, array in weights_of(adapters / "a").items())


def test_a_module_under_two_names_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    save_adapter(tiny_gpt2, tmp_path, target_modules=["c_attn"])
    weights = weights_of(tmp_path)
    published = {name.replace("model.transformer.h.", "model.h."): array for name, array in weights.items()}
    installer = Installer(load(tiny_gpt2), config_of(tmp_path))
    installer.install(published)
    with pytest.raises(UserError, match="h.0.attn.c_attn.weight and transformer.h.0.attn.c_attn.weight are one param"):
        installer.install(weights | published)
