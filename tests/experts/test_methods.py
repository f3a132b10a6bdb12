"""peft methods: their names, and the conversion of their experts to plain LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import load
from training_helpers import training_config

from evoswarm.config.training import Method
from evoswarm.engine.install import Installer
from evoswarm.errors import UserError
from evoswarm.experts.method import choose
from evoswarm.experts.pool import train_pool
from evoswarm.rows import Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import read_json
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

IDS = torch.arange(5, 25)[None]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a method": ({"type": "lorra"}, r"method 'lorra' is not known; did you mean lora\?"),
    "no method at all": ({"type": "zzzz"}, "known methods: .*corda.*dora.*lora.*miss.*pissa.*vera.*wegeft"),
    "a setting": (
        {"type": "lora", "lora_alfa": 3},
        r"method.lora_alfa is not a setting of lora; did you mean lora_alpha\?",
    ),
    "a value": ({"type": "wegeft", "r": 0}, "method wegeft: r must be at least 1"),
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


def test_experts_of_eva_have_ranks_of_their_own_and_are_mixed(tiny_llama: Path, tmp_path: Path) -> None:
    """arXiv 2410.07170: ranks go to the modules whose inputs have the most variance on the expert's data."""
    method = {"init_lora_weights": "eva", "r": 4, "eva_config": {"rho": 2.0}, "target_modules": LINEAR}
    config = training_config(tmp_path, tiny_llama, "a", "b", method=method)
    train_pool(config)
    patterns = [read_json(config.pool / name / "adapter_config.json")["rank_pattern"] for name in "ab"]
    assert all(len(set(pattern.values())) > 1 for pattern in patterns) and patterns[0] != patterns[1]
    pool = open_pool(PoolConfig(experts=config.pool), model=str(tiny_llama))
    assert pool.space_name == "product"
    for name in "ab":
        model = load(tiny_llama)
        Installer(model, pool.adapter).install(Materializer(pool).one(Row.one(name)))
        expected = PeftModel.from_pretrained(load(tiny_llama), config.pool / name).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(IDS).logits, expected(IDS).logits, atol=1e-4, rtol=0)
