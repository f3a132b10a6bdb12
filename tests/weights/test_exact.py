"""A mix of adapters that peft wrote with any settings is the base plus the sum of the differences that peft merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, load_architecture, save_architecture
from peft import LoraConfig, PeftModel, get_peft_model

from evoswarm.engine.install import Installer
from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool
from evoswarm.weights.save import save_expert

MIX = {"a": 0.7, "b": -0.4}
Q, V = ["q_proj"], ["v_proj"]
Lora = dict[str, Any]
PAIRS: dict[str, tuple[str, Lora, Lora]] = {
    "excluded modules": (
        "llama",
        {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
        {"target_modules": [*Q, *V], "exclude_modules": r".*layers\.0.*"},
    ),
    "some layers": (
        "llama",
        {"target_modules": Q, "layers_to_transform": [1]},
        {"target_modules": Q, "layers_to_transform": 0, "layers_pattern": "layers"},
    ),
    "regular expressions": (
        "llama",
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": r"model\.layers\.1\..*_proj"},
    ),
    "patterns": (
        "llama",
        {"target_modules": [*Q, *V], "rank_pattern": {r"^model\.layers\.0.*": 2, "v_proj": 6}},
        {"target_modules": Q, "use_rslora": True, "alpha_pattern": {"q_proj": 5}},
    ),
    "a head as a LoRA and as a whole": (
        "llama",
        {"target_modules": [*Q, "lm_head"]},
        {"target_modules": Q, "modules_to_save": ["lm_head"]},
    ),
    "an embedding as a LoRA and as a whole": (
        "llama",
        {"target_modules": [*Q, "embed_tokens"]},
        {"target_modules": Q, "modules_to_save": ["embed_tokens"]},
    ),
    "a layer as a LoRA and as a whole": (
        "llama",
        {"target_modules": [*Q, "down_proj"]},
        {"target_modules": Q, "modules_to_save": ["mlp"]},
    ),
    "a wrong fan_in_fan_out": (
        "gpt2",
        {"target_modules": ["c_proj"], "fan_in_fan_out": False},
        {"target_modules": ["c_attn"], "fan_in_fan_out": True, "r": 2},
    ),
    "biases": ("opt", {"target_modules": Q, "bias": "all"}, {"target_modules": V, "bias": "lora_only"}),
    "fused layers": ("phi3", {"target_modules": ["qkv_proj"]}, {"target_modules": "all-linear", "r": 2}),
    "a router": ("mixtral", {"target_modules": Q, "modules_to_save": ["gate"]}, {"target_modules": V}),
    "a text model inside another": (
        "gemma3",
        {"target_modules": r".*language_model.*q_proj", "modules_to_save": ["embed_tokens"]},
        {"target_modules": V},
    ),
}
"""Architecture, and the settings of two adapters."""


def save_adapter(base: Path, folder: Path, *, seed: int, **lora: Any) -> None:
    model = get_peft_model(load_architecture(base), LoraConfig(**{"r": 4, "task_type": "CAUSAL_LM"} | lora))
    random = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter.data.mul_(0.5).add_(0.1 * torch.randn(parameter.shape, generator=random))
    model.save_pretrained(folder)


def merged(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the base model with an adapter, by peft."""
    return PeftModel.from_pretrained(load_architecture(base), folder).merge_and_unload().state_dict()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PAIRS)
def test_a_mix_is_the_base_plus_the_differences_in_the_engine_and_in_peft(case: str, tmp_path: Path) -> None:
    architecture, *settings = PAIRS[case]
    base = save_architecture(architecture, tmp_path / "base")
    for seed, (name, lora) in enumerate(zip(MIX, settings, strict=True)):
        save_adapter(base, tmp_path / "pool" / name, seed=seed, **lora)
    start = {name: tensor.clone() for name, tensor in load_architecture(base).state_dict().items()}
    alone = {name: merged(base, tmp_path / "pool" / name) for name in MIX}
    pool = open_pool(PoolConfig(experts=tmp_path / "pool", space="product"), model=str(base))
    assert pool.warnings == []
    row = Row(tuple((ExpertVector(name), value) for name, value in MIX.items()))
    engine = load_architecture(base)
    Installer(engine, pool.adapter).install(Materializer(pool).one(row))
    save_expert(Materializer(pool), row, tmp_path / "best", base=str(base))
    best = merged(base, tmp_path / "best")
    for name, tensor in start.items():
        expected = tensor + sum(value * (alone[expert][name] - tensor) for expert, value in MIX.items())
        assert torch.allclose(engine.state_dict()[name], expected, atol=1e-6), name
        assert torch.allclose(best[name], expected, atol=1e-6), name


@pytest.mark.filterwarnings("ignore")
def test_adapters_of_fused_experts_are_refused_in_one_line(tmp_path: Path) -> None:
    base = save_architecture("qwen3-moe", tmp_path / "base")
    for seed, name in enumerate(MIX):
        save_adapter(base, tmp_path / "pool" / name, seed=seed, target_modules=ARCHITECTURES["llama"].targets)
    with pytest.raises(UserError, match="pool: a, b: target_parameters is not supported .*--save checkpoint") as caught:
        open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))
    assert "problems" not in str(caught.value)
