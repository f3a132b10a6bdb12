"""Mixed distributions in the real vLLM, with models of several sizes and prompts that it takes in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from evoswarm.engine import TransformersEngine
from evoswarm.engine import VllmEngine as VllmConfig
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.tokenizer import load_tokenizer
from evoswarm.toy import world
from evoswarm.utility import Chat

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
pytestmark = pytest.mark.slow

BASE = str(world() / "base")
ARGS = {"max_model_len": 64, "enforce_eager": True}


def test_distributions_are_mixed_and_prompts_may_come_in_parts(tmp_path: Path) -> None:
    """Another architecture, with a longer vocabulary than the tokenizer has, and prompts that vLLM cuts."""
    other, size = tmp_path / "other", len(load_tokenizer(BASE, trust_remote_code=False))
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = LlamaConfig(vocab_size=size + 8, max_position_embeddings=128, initializer_range=0.3, **shape)
    LlamaForCausalLM(settings).save_pretrained(other)
    load_tokenizer(BASE, trust_remote_code=False).save_pretrained(other)
    members = (Member(BASE, world() / "experts" / "rev"), Member(str(other)), Member(BASE))
    combination = Combination("mix", Member(BASE), members)
    args = ARGS | {"max_num_batched_tokens": 32, "max_num_seqs": 4}
    vllm, plain = VllmConfig(args=args).start_combined(combination), TransformersEngine().start_combined(combination)
    for engine in (vllm, plain):
        engine.install({"mixing": np.array([0.8, 0.3, -0.1], np.float32)})
    prompts = [
        Chat((("user", f"sort dbacf next dbaj rot dbac swap {tail}"),)) for tail in ("ab", "cde", "f", "gh", "i")
    ]
    assert vllm.generate(prompts, max_new_tokens=8) == plain.generate(prompts, max_new_tokens=8)
    options = [("ab", "ba")] * len(prompts)
    found, expected = (
        [score.logprob for line in engine.loglikelihood(prompts, options) for score in line] for engine in (vllm, plain)
    )
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    vllm.close()
