"""vLLM's CPU build answers as transformers does, for adapters of published models of several architectures."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from architectures import ARCHITECTURES, save_architecture, save_lora
from transformers import CodeGenConfig

from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.engine.base import Engine
from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert, open_expert

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")

PROMPTS = ("abc", "the quick brown fox", "12 + 7 =")
NEAR = 0.1
"""vLLM's CPU kernels round more than torch's; these random models have large activations."""
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
WIDE = {
    "gpt2": {"n_embd": 128},
    "opt": {"hidden_size": 128, "ffn_dim": 256, "word_embed_proj_dim": 128},
    "qwen3": SIZES,
}
"""vLLM's CPU build needs heads of 32 or more, and packs matrices in blocks."""


def scores(engine: Engine, expert: Expert | None) -> list[float]:
    engine.install(None if expert is None else expert.tensors())
    found = engine.loglikelihood(PROMPTS, [["a", "b", "c"]] * len(PROMPTS))
    return [option.logprob for options in found for option in options]


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_merged_adapters_score_as_with_transformers(name: str, tmp_path: Path) -> None:
    base = save_architecture(name, tmp_path / "base", **WIDE[name])
    save_lora(base, tmp_path / "adapter", ARCHITECTURES[name].targets)
    vllm = VllmEngine(adapter_mode="merged", args={"max_model_len": 64, "enforce_eager": True, "block_size": 32})
    expert = open_expert(tmp_path / "adapter")
    reference = TransformersEngine().start(model=str(base), adapter=expert.config)
    wanted, without = scores(reference, expert), scores(reference, None)
    assert max(abs(x - y) for x, y in zip(wanted, without, strict=True)) > 5 * NEAR
    with closing(vllm.start(model=str(base), adapter=expert.config)) as engine:
        assert scores(engine, None) == pytest.approx(without, abs=NEAR)
        assert scores(engine, expert) == pytest.approx(wanted, abs=NEAR)
        assert scores(engine, None) == pytest.approx(without, abs=NEAR)


@pytest.mark.slow
def test_a_model_that_vllm_does_not_know_is_refused_before_a_run(tmp_path: Path) -> None:
    config = CodeGenConfig(vocab_size=100, n_embd=32, n_layer=1, n_head=4, rotary_dim=4, n_positions=64)
    config.architectures = ["CodeGenForCausalLM"]
    config.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match=r"engine vllm: it does not know this model \(.*CodeGen.*engine.type: transf"):
        VllmEngine().check_model(model=str(tmp_path / "base"))
    VllmEngine().check_model(model=str(save_architecture("qwen3", tmp_path / "qwen3")))
