"""vLLM's CPU build answers as transformers does, for adapters and checkpoints of published models."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import (
    ARCHITECTURES,
    EXPERT_MODULES,
    LLAMA,
    QWEN3_VISION,
    QWEN25_VISION,
    SECTIONS,
    add_expert_lora,
    load_architecture,
    save_architecture,
    save_lora,
)
from tiny_models import make_tokenizer
from transformers import CodeGenConfig

from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.engine.base import AdaptersNotSupported, Engine
from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert, open_expert

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
pytestmark = pytest.mark.slow

Weights = Mapping[str, np.ndarray] | None
PROMPTS = ("abc", "the quick brown fox", "12 + 7 =")
NEAR = 1e-3
ARGS = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
"""vLLM's CPU build needs heads of 32 or more."""
TEXT = LLAMA | SIZES
MROPE = SECTIONS | {"mrope_section": [8, 4, 4]}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32}
    | {"intermediate_size": 112},
    "llama, tied": SIZES,
    "qwen3": SIZES,
    "gemma3 text": SIZES,
    "gemma3": {"text_config": TEXT},
    "qwen2.5-vl": {
        "text_config": TEXT | {"rope_parameters": MROPE},
        "vision_config": QWEN25_VISION | {"out_hidden_size": 128},
    },
    "qwen3-vl": {
        "text_config": TEXT | {"rope_parameters": MROPE | {"mrope_interleaved": True}},
        "vision_config": QWEN3_VISION | {"out_hidden_size": 128},
    },
    "phi3": SIZES,
    "gpt2": {"n_embd": 128},
    "opt": {"hidden_size": 128, "ffn_dim": 256, "word_embed_proj_dim": 128},
    "mixtral": SIZES,
    "qwen3-moe": SIZES | {"moe_intermediate_size": 64},
}
IMAGES = pytest.mark.skipif(
    find_spec("torchvision") is None,
    reason="vLLM reads images with torchvision; make test-slow runs these tests with it",
)
NAMES = [
    pytest.param(name, marks=IMAGES if "vision_config" in ARCHITECTURES[name].settings else ()) for name in SETTINGS
]
MERGED_ONLY = {"gpt2", "mixtral", "qwen3-moe"}
"""vLLM has no adapters for the first, and its CPU build none for mixtures of experts."""


def found(engine: Engine, weights: Weights) -> tuple[list[float], list[str]]:
    """Scores and answers."""
    engine.install(weights)
    rows = engine.loglikelihood(PROMPTS, [["a", "b", "c"]] * len(PROMPTS))
    return [option.logprob for row in rows for option in row], engine.generate(PROMPTS, max_new_tokens=6)


def assert_alike(base: Path, expert: Expert, vllm: VllmEngine) -> None:
    """Both engines give the same with the expert, and with the base before and after it."""
    adapter, weights = expert.config if expert.kind == "adapter" else None, expert.tensors()
    reference = TransformersEngine().start(model=str(base), adapter=adapter)
    wanted, without = found(reference, weights), found(reference, None)
    assert max(abs(x - y) for x, y in zip(wanted[0], without[0], strict=True)) > 100 * NEAR
    with closing(vllm.start(model=str(base), adapter=adapter)) as engine:
        for given, (scores, answers) in ((None, without), (weights, wanted), (None, without)):
            have = found(engine, given)
            assert have[0] == pytest.approx(scores, abs=NEAR) and have[1] == answers


def saved(name: str, folder: Path) -> tuple[Path, Expert]:
    base = save_architecture(name, folder / "base", **SETTINGS[name])
    save_lora(base, folder / "adapter", ARCHITECTURES[name].targets)
    if name in EXPERT_MODULES:
        add_expert_lora(base, folder / "adapter", name)
    return base, open_expert(folder / "adapter")


@pytest.mark.parametrize("name", NAMES)
def test_merged_adapters_answer_as_with_transformers(name: str, tmp_path: Path) -> None:
    base, expert = saved(name, tmp_path)
    assert_alike(base, expert, VllmEngine(adapter_mode="merged", args=ARGS))


@pytest.mark.parametrize("name", NAMES)
def test_adapters_of_one_batch_answer_as_with_transformers_or_are_refused(name: str, tmp_path: Path) -> None:
    base, expert = saved(name, tmp_path)
    vllm = VllmEngine(adapter_mode="multi_lora", max_loras=2, args=ARGS)
    if name not in MERGED_ONLY:
        return assert_alike(base, expert, vllm)
    with pytest.raises(AdaptersNotSupported), closing(vllm.start(model=str(base), adapter=expert.config)) as engine:
        engine.install(expert.tensors())


def test_mistrals_own_files_next_to_those_of_transformers_are_not_read(tmp_path: Path) -> None:
    published = save_architecture("mistral", tmp_path / "published", **SIZES)
    base, stale = tmp_path / "base", save_architecture("mistral", tmp_path / "stale", seed=7, **SIZES)
    load_architecture(published).save_pretrained(base, max_shard_size="100KB")
    make_tokenizer().save_pretrained(base)
    shutil.copy(stale / "model.safetensors", base / "consolidated.safetensors")
    (base / "params.json").write_text('{"dim": 64}')
    save_lora(base, tmp_path / "adapter", ARCHITECTURES["mistral"].targets)
    assert_alike(base, open_expert(tmp_path / "adapter"), VllmEngine(adapter_mode="merged", args=ARGS))


@pytest.mark.parametrize("name", NAMES)
def test_full_checkpoints_answer_as_with_transformers(name: str, tmp_path: Path) -> None:
    base, other = (save_architecture(name, tmp_path / f"{seed}", seed=seed, **SETTINGS[name]) for seed in (0, 7))
    assert_alike(base, open_expert(other), VllmEngine(adapter_mode="merged", args=ARGS))


@pytest.mark.parametrize(("name", "sizes"), [("mixtral", {}), ("qwen3-moe", {"moe_intermediate_size": 40})])
def test_reloaded_mixtures_in_bfloat16_answer_as_a_fresh_engine(
    name: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    """vLLM's CPU build has a kernel of its own for bfloat16, and another one for sizes that it cannot pack."""
    settings = SETTINGS[name] | sizes
    base, other = (save_architecture(name, tmp_path / f"{seed}", seed=seed, **settings) for seed in (0, 7))
    config = VllmEngine(adapter_mode="merged", args=ARGS, dtype="bfloat16")
    with closing(config.start(model=str(other), adapter=None)) as engine:
        wanted = found(engine, None)
    with closing(config.start(model=str(base), adapter=None)) as engine:
        without = found(engine, None)
        assert found(engine, open_expert(other).tensors()) == wanted != without
        assert found(engine, None) == without


def test_a_model_that_vllm_does_not_know_is_refused_before_a_run(tmp_path: Path) -> None:
    config = CodeGenConfig(vocab_size=100, n_embd=32, n_layer=1, n_head=4, rotary_dim=4, n_positions=64)
    config.architectures = ["CodeGenForCausalLM"]
    config.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match=r"engine vllm: it does not know this model \(.*CodeGen.*engine.type: transf"):
        VllmEngine().check_model(model=str(tmp_path / "base"))
    VllmEngine().check_model(model=str(save_architecture("qwen3", tmp_path / "qwen3")))
