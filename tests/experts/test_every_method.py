"""Every method of peft: its experts evolve as LoRA or as checkpoints, or are refused before the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from tiny_models import load, save_llama
from training_helpers import result_bytes, training_config

from evoswarm.engine.install import Installer
from evoswarm.errors import UserError
from evoswarm.experts.export import export
from evoswarm.experts.pool import train_pool
from evoswarm.experts.prepare import prepare_data
from evoswarm.experts.train import train_expert
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool

TARGETS = ["q_proj", "v_proj", "down_proj"]
TOKENS = [71, 72]
"""`a` and `b`, which are in the data."""
IDS = torch.arange(24).reshape(2, 12) + 66
AS_LORA: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "rslora": {"r": 4},
    "pissa": {"r": 4},
    "pissa, patterns": {"r": 4, "rank_pattern": {"v_proj": 2}},
    "olora": {"r": 4},
    "corda": {"r": 4},
    "lora_ga": {"r": 4},
    "lora, mica": {"r": 4, "init_lora_weights": "mica"},
    "lora, orthogonal": {"r": 4, "init_lora_weights": "orthogonal"},
    "lora, velora": {"r": 4, "velora_config": {"num_groups": 16}},
    "lora, monteclora": {"r": 4, "monteclora_config": {"num_samples": 2}},
    "lora, bdlora": {
        "r": 4,
        "use_bdlora": {"target_modules_bd_a": ["v_proj"], "target_modules_bd_b": ["q_proj", "down_proj"], "nblocks": 2},
    },
    "kasa": {"r": 4},
    "wegeft": {"r": 4, "wegeft_alpha": 8},
    "wegeft, per layer": {"r": 4, "wegeft_alpha": 8, "shared": False},
    "miss": {"r": 8},
    "miss, padding": {"r": 10},
    "miss, mini": {"r": 8, "init_weights": "mini", "mini_r": 4},
    "vera": {"r": 16},
    "pvera": {"r": 16},
    "adalora": {"init_r": 4, "target_r": 2, "deltaT": 1},
    "hra": {"r": 4},
    "hra, orthogonal": {"r": 3, "apply_GS": True},
    "loha": {"r": 3, "alpha": 6},
    "gralora": {"r": 4, "gralora_k": 2},
    "gralora, hybrid": {"r": 4, "gralora_k": 2, "hybrid_r": 2},
    "delora": {"r": 4},
    "deft": {"r": 4},
    "deft, relu": {"r": 4, "decomposition_method": "relu", "alpha": 8},
    "deft, para": {"r": 4, "para": True},
    "psoft": {"r": 4},
    "psoft, free": {"r": 4, "psoft_orth": False, "ab_svd_init": "pissa_init"},
    "tinylora": {"r": 2, "u": 16},
    "vblora": {"r": 4, "vector_length": 16, "num_vectors": 32},
    "unilora": {"r": 4},
    "adamss": {"r": 8, "num_subspaces": 3, "subspace_rank": 2},
    "adamss, asa": {
        "r": 8,
        "num_subspaces": 3,
        "use_asa": True,
        "init_warmup": 1,
        "final_warmup": 3,
        "mask_interval": 1,
    },
}
"""The rest of the settings is peft's or ours."""
AS_CHECKPOINT: dict[str, dict[str, Any]] = {
    "dora": {"r": 4},
    "lora, tokens": {"trainable_token_indices": TOKENS},
    "lora, parameters": {"target_modules": [], "target_parameters": ["q_proj.weight"]},
    "lora, all biases": {"bias": "all"},
    "lora, head": {"modules_to_save": ["lm_head"]},
    "lokr": {"r": 4},
    "fourierft": {"n_frequency": 20},
    "c3a": {"block_size": 16},
    "waveft": {"n_frequency": 20},
    "randlora": {"r": 8},
    "hira": {"r": 4},
    "glora": {"r": 4},
    "peanut": {"r": 4},
    "frod": {},
    "shira": {"r": 4},
    "osf": {"effective_rank": 4},
    "boft": {"boft_block_size": 4},
    "oft": {"oft_block_size": 4},
    "road": {"group_size": 16},
    "ia3": {"feedforward_modules": ["down_proj"]},
    "ln_tuning": {"target_modules": ["input_layernorm"]},
    "supertuning": {},
    "trainable_tokens": {"token_indices": TOKENS, "target_modules": None},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        name: ({"num_virtual_tokens": 4}, "it learns prompts")
        for name in ("prompt_tuning", "p_tuning", "prefix_tuning", "multitask_prompt_tuning", "cpt", "cartridge")
    },
    "adaption_prompt": ({}, "it learns prompts"),
    "beft": ({}, "it trains biases"),
    "lily": ({}, "its weights depend on the input"),
    "poly": ({}, "its weights depend on the input"),
    "xlora": ({}, "its weights depend on the input"),
    "shadow": ({}, "a second model beside the base"),
    "lora, alora": ({"alora_invocation_tokens": [8]}, "alora_invocation_tokens: an adapter that acts on part"),
    "lora, replication": ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication: it changes the layers"),
    "lora, qalora": ({"use_qalora": True}, "use_qalora: its layers are quantized"),
    "lora, arrow": ({"arrow_config": {}}, "arrow_config: its router depends on the input"),
    "lora, bias of B": ({"lora_bias": True}, "lora_bias: the base model has no place"),
}


QUICK = ("lora, bdlora", "kasa", "adalora", "hra", "loha", "dora", "lora, head")
"""Trained in the quick tests too."""


def cases(table: dict[str, Any]) -> list[Any]:
    """The names in a table; most are slow."""
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in table]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with weights of the usual size."""
    return save_llama(tmp_path_factory.mktemp("models") / "llama", spread=0.1)


def method(case: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The `method` section of a config."""
    name = case.partition(",")[0]
    targets = {} if "target_modules" in settings or name in ("supertuning",) else {"target_modules": TARGETS}
    return {"type": name} | {key: value for key, value in (targets | settings).items() if value is not None}


def trained_logits(folder: Path, base: Path, **changes: Any) -> torch.Tensor:
    """Train the expert `a`; the logits of peft's own model after the training."""
    found: list[torch.Tensor] = []
    training = {"batch_size": 4, "max_steps": 3, "learning_rate": 0.01}
    config = training_config(folder, base, "a", training=training, **changes)
    prepare_data(config, "a")
    record = train_expert(config, "a", trained=lambda model: found.append(logits(model.eval())))
    assert "error" not in record, record
    return found[0]


def engine_logits(pool: Path, base: Path) -> torch.Tensor:
    """The logits of the base model in which the engine has installed the expert `a`, read as a pool."""
    expert = open_pool(PoolConfig(experts=pool), model=str(base), alone=True).experts[0]
    model = load(base)
    Installer(model, expert.config if expert.kind == "adapter" else None).install(expert.tensors())
    return logits(model)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """A model's logits for fixed ids [2, 12]."""
    result: torch.Tensor = model(input_ids=IDS).logits
    return result


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference relative to the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_tables_name_every_method_of_peft() -> None:
    named = {case.partition(",")[0] for table in (AS_LORA, AS_CHECKPOINT, REFUSED) for case in table}
    assert {str(kind.value).lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING} <= named


@pytest.mark.parametrize("case", cases(AS_LORA))
def test_the_engine_answers_like_peft_with_the_lora_that_an_expert_converts_to(
    base: Path, tmp_path: Path, case: str
) -> None:
    expected = trained_logits(tmp_path, base, method=method(case, AS_LORA[case]))
    assert difference(expected, logits(load(base))) > 1e-5
    found = engine_logits(tmp_path / "pool", base)
    assert difference(found, expected) < (1e-6 if case != "kasa" else 4e-6)  # rounds the base that it truncates


@pytest.mark.parametrize("case", cases(AS_CHECKPOINT))
def test_the_engine_answers_like_peft_with_the_checkpoint_that_an_expert_merges_into(
    base: Path, tmp_path: Path, case: str
) -> None:
    settings = method(case, AS_CHECKPOINT[case])
    expected = trained_logits(tmp_path, base, method=settings, save="checkpoint")
    assert difference(expected, logits(load(base))) > 1e-6
    assert difference(engine_logits(tmp_path / "pool", base), expected) < 2e-6


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("save", ["lora", "checkpoint"])
def test_a_method_whose_experts_cannot_evolve_is_refused_before_the_training(
    tiny_llama: Path, tmp_path: Path, case: str, save: str
) -> None:
    settings, reason = REFUSED[case]
    chosen = {"type": case.partition(",")[0], **settings}
    config = training_config(tmp_path, tiny_llama, "a", method=chosen, save=save)
    with pytest.raises(UserError, match=f"method .*, because .*{reason}") as caught:
        train_pool(config)
    assert "\n" not in str(caught.value)
    assert not config.pool.exists()


@pytest.mark.parametrize("case", AS_CHECKPOINT)
def test_a_method_that_only_merges_names_checkpoints_as_the_way(tiny_llama: Path, tmp_path: Path, case: str) -> None:
    if not AS_CHECKPOINT[case].keys() & {"bias", "modules_to_save"}:  # LoRA has those
        config = training_config(tmp_path, tiny_llama, "a", method=method(case, AS_CHECKPOINT[case]))
        with pytest.raises(UserError, match="cannot be converted to LoRA, because .*; save: checkpoint merges them"):
            train_pool(config)
        assert not config.pool.exists()


PLAIN = {"lora", "rslora", "lora, mica", "lora, orthogonal"}


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(AS_LORA.keys() - PLAIN - {"corda", "lora_ga"}))
def test_adapters_that_peft_saved_convert_to_a_pool(base: Path, tmp_path: Path, case: str) -> None:
    expected = trained_logits(tmp_path, base, method=method(case, AS_LORA[case]), save="native")
    if not case.startswith("wegeft"):
        with pytest.raises(UserError, match="experts convert"):
            engine_logits(tmp_path / "pool", base)
    export(tmp_path / "pool", tmp_path / "lora", model=str(base))
    assert difference(engine_logits(tmp_path / "lora", base), expected) < (1e-6 if case != "kasa" else 4e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dora", "lora, tokens", "lora, parameters", "lokr", "boft", "ia3"])
def test_adapters_that_peft_saved_and_are_no_lora_convert_to_checkpoints(base: Path, tmp_path: Path, case: str) -> None:
    expected = trained_logits(tmp_path, base, method=method(case, AS_CHECKPOINT[case]), save="native")
    with pytest.raises(UserError, match="save checkpoint"):
        engine_logits(tmp_path / "pool", base)
    with pytest.raises(UserError, match="cannot be converted to LoRA"):
        export(tmp_path / "pool", tmp_path / "lora", model=str(base))
    export(tmp_path / "pool", tmp_path / "checkpoints", model=str(base), how="checkpoint")
    assert difference(engine_logits(tmp_path / "checkpoints", base), expected) < 1e-6


def test_adalora_is_told_the_steps_and_drops_ranks(base: Path, tmp_path: Path) -> None:
    trained_logits(tmp_path, base, method=method("adalora", AS_LORA["adalora"]))
    tensors = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base), alone=True).experts[0].tensors()
    rows = [bool(row.any()) for name, a in tensors.items() if "lora_A" in name for row in a]
    assert 12 <= sum(rows) < len(rows) == 24


def test_a_lora_of_a_rank_that_no_engine_serves_is_refused_before_the_training(base: Path, tmp_path: Path) -> None:
    config = training_config(tmp_path, base, "a", method=method("loha", {"r": 23}))
    with pytest.raises(UserError, match=r"method loha: as LoRA .* has rank 529, more than engines serve \(512\)"):
        train_pool(config)


@pytest.mark.parametrize("setting", [{"bias": "all"}, {"modules_to_save": ["lm_head"]}])
def test_pissa_does_not_lose_what_is_trained_besides_it(base: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    config = training_config(tmp_path, base, "a", method=method("pissa", setting))
    with pytest.raises(UserError, match="method pissa: cannot be converted to LoRA, because .* not part of a LoRA"):
        train_pool(config)


def test_the_card_of_a_checkpoint_says_how_to_load_it(base: Path, tmp_path: Path) -> None:
    trained_logits(tmp_path, base, method=method("dora", {"r": 2}), save="checkpoint")
    card = (tmp_path / "pool" / "a" / "README.md").read_text()
    assert "Trained by evoswarm with dora, merged into the base model." in card
    assert "model = AutoModelForCausalLM.from_pretrained(folder)" in card and "PeftModel" not in card


@pytest.mark.slow
@pytest.mark.parametrize("case", AS_LORA)
def test_an_interrupted_training_of_any_method_ends_in_the_same_bytes(base: Path, tmp_path: Path, case: str) -> None:
    def interrupt(status: dict[str, Any]) -> None:
        if status["step"] == 3:
            raise KeyboardInterrupt

    training = {"batch_size": 4, "max_steps": 4, "learning_rate": 0.01, "checkpoint_steps": 2}
    settings: dict[str, Any] = {"method": method(case, AS_LORA[case]), "training": training}
    whole, stopped = (training_config(tmp_path, base, "a", pool=pool, **settings) for pool in ("whole", "stopped"))
    for config in (whole, stopped):
        prepare_data(config, "a")
    with pytest.raises(KeyboardInterrupt):
        train_expert(stopped, "a", report=interrupt)
    for config in (whole, stopped):
        assert "error" not in train_expert(config, "a")
    assert result_bytes(stopped.pool) == result_bytes(whole.pool)
