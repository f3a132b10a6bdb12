"""peft methods: their names, and the conversion of their experts to plain LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import load
from training_helpers import training_config
from wegeft_helpers import logits

from evoswarm.config.training import Method
from evoswarm.errors import UserError
from evoswarm.experts.method import choose
from evoswarm.experts.pool import train_pool
from evoswarm.experts.prepare import prepare_data
from evoswarm.experts.train import train_expert
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EXACT: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "r": 4},
    "rslora": {"type": "rslora", "r": 4},
    "pissa": {"type": "pissa", "r": 4},
    "olora": {"type": "olora", "r": 4},
    "corda": {"type": "corda", "r": 4},
    "lora_ga": {"type": "lora_ga", "r": 4},
    "pissa with patterns": {"type": "pissa", "r": 4, "rank_pattern": {"v_proj": 2}},
    "miss": {"type": "miss", "r": 8},
    "miss with padding": {"type": "miss", "r": 10},
    "miss mini": {"type": "miss", "r": 8, "init_weights": "mini", "mini_r": 4},
    "vera": {"type": "vera", "r": 16},
    "wegeft": {"type": "wegeft", "r": 4, "wegeft_alpha": 8},
    "wegeft per layer": {"type": "wegeft", "r": 4, "wegeft_alpha": 8, "shared": False},
}


@pytest.mark.parametrize("case", EXACT)
def test_the_saved_lora_agrees_with_the_trained_model(tiny_llama: Path, tmp_path: Path, case: str) -> None:
    trained: list[torch.Tensor] = []
    config = training_config(tmp_path, tiny_llama, "a", "b", method=EXACT[case])
    for name in config.experts:
        prepare_data(config, name)
        train_expert(config, name, trained=lambda model: trained.append(logits(model.eval())))
    pool = open_pool(PoolConfig(experts=config.pool), model=str(tiny_llama))
    assert {expert.config["peft_type"] for expert in pool.experts} == {"LORA"}
    for expert, expected in zip(("a", "b"), trained, strict=True):
        loaded = PeftModel.from_pretrained(load(tiny_llama), config.pool / expert).eval()
        assert (logits(loaded) - expected).abs().max() < (1e-4 if choose(config.method).changes_base else 1e-5)
    assert (trained[0] - logits(load(tiny_llama))).abs().max() > 1e-2
    assert not torch.equal(trained[0], trained[1])


REFUSED = {
    "dora": "because its magnitude makes the merge non-linear",
    "loftq": "because it is trained on quantized base weights",
    "ia3": "because it rescales activations",
    "loha": "because its update is of full rank",
    "prompt_tuning": "because it learns prompts",
    "fourierft": "because its update is of full rank",
}


@pytest.mark.parametrize("name", REFUSED)
def test_methods_without_a_conversion_to_lora_are_rejected_with_the_reason(
    tiny_llama: Path, tmp_path: Path, name: str
) -> None:
    settings = {"num_virtual_tokens": 4} if name == "prompt_tuning" else {}
    config = training_config(tmp_path, tiny_llama, "a", method={"type": name, **settings})
    with pytest.raises(UserError, match=f"{name}: its experts cannot be evolved, {REFUSED[name]}.*save: native"):
        train_pool(config)
    assert not config.pool.exists()


def test_save_native_trains_methods_that_cannot_be_evolved(tiny_llama: Path, tmp_path: Path) -> None:
    config = training_config(tmp_path, tiny_llama, "a", "b", method={"type": "dora", "r": 2}, save="native")
    train_pool(config)
    assert PeftModel.from_pretrained(load(tiny_llama), config.pool / "a").peft_config["default"].use_dora
    with pytest.raises(UserError, match="use_dora is not supported"):
        open_pool(PoolConfig(experts=config.pool), model=str(tiny_llama))


def test_defaults_are_the_published_ones() -> None:
    lora = choose(Method()).config
    assert (lora.r, lora.lora_alpha, lora.target_modules, lora.task_type) == (8, 16, "all-linear", "CAUSAL_LM")
    wegeft = choose(Method(type="wegeft")).config
    assert (wegeft.r, wegeft.wegeft_alpha, wegeft.wegeft_dropout, wegeft.shared) == (64, 128, 0.1, True)
    assert wegeft.target_modules == {"q_proj", "k_proj", "v_proj", "up_proj", "down_proj"}


WRONG = {
    "a method": ({"type": "lorra"}, r"method 'lorra' is not known; did you mean lora\?"),
    "no method at all": ({"type": "zzzz"}, "known methods: .*corda.*dora.*lora.*miss.*pissa.*vera.*wegeft"),
    "a setting": (
        {"type": "lora", "lora_alfa": 3},
        r"method.lora_alfa is not a setting of lora; did you mean lora_alpha\?",
    ),
    "a value": ({"type": "wegeft", "r": 0}, "method wegeft: r must be at least 1"),
    "eva": ({"type": "lora", "init_lora_weights": "eva"}, "EVA's ranks differ between experts"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_method_gives_one_clear_error_line(case: str) -> None:
    settings, words = WRONG[case]
    with pytest.raises(UserError, match=words) as caught:
        choose(Method(**settings))
    assert "\n" not in str(caught.value)


def test_an_unknown_target_module_lists_the_existing_ones(tiny_llama: Path, tmp_path: Path) -> None:
    config = training_config(tmp_path, tiny_llama, "a", method={"target_modules": ["q_proj", "x_proj"]})
    with pytest.raises(UserError) as caught:
        train_pool(config)
    listed = ", ".join(sorted([*LINEAR, "lm_head"]))
    assert f"the model has no module 'x_proj'; its linear ones are {listed}" in str(caught.value)
