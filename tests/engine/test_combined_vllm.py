"""Several models that answer as one in the real vLLM, against transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from evoswarm.engine import TransformersEngine
from evoswarm.engine import VllmEngine as VllmConfig
from evoswarm.engine.base import Verified
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.settings import KEY
from evoswarm.engine.combined.vllm import CombinedVllmEngine
from evoswarm.errors import UserError
from evoswarm.toy import world
from evoswarm.utility import Chat

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
pytestmark = pytest.mark.slow

BASE = str(world() / "base")
NAMES = ["rev", "sort", "add"]
PROMPTS = [
    Chat((("user", text),)) for text in ("rev abcd", "sort dcab", "add 12 30", "rev jihg", "sort fedcba", "rev a")
]
OPTIONS = [("dcba", "abcd"), ("abcd", "dcab"), ("42", "41", "4"), ("ghij", "jihg"), ("abcdef", "fedcba"), ("a", "b")]
ARGS = {"max_model_len": 64, "enforce_eager": True}
NEAR = {"rel": 1e-3, "abs": 1e-3}


@pytest.fixture(scope="module")
def steering(tmp_path_factory: pytest.TempPathFactory) -> Combination:
    """The large base is a copy of the small one, in a folder of its own."""
    large = Path(shutil.copytree(BASE, tmp_path_factory.mktemp("models") / "large"))
    experts = tuple(Member(BASE, world() / "experts" / name) for name in NAMES)
    return Combination("steering", Member(str(large)), experts, Member(BASE))


@pytest.fixture(scope="module")
def vllm(steering: Combination) -> CombinedVllmEngine:
    engine = VllmConfig(args=ARGS).start_combined(steering)
    assert isinstance(engine, CombinedVllmEngine)
    return engine


@pytest.fixture(scope="module")
def plain(steering: Combination):
    return TransformersEngine().start_combined(steering)


def logprobs(found) -> list[float]:
    return [score.logprob for line in found for score in line]


def text(found: Verified) -> str:
    return found.reply if isinstance(found.reply, str) else found.reply.text


@pytest.mark.parametrize("mixing", [None, [0, 0, 0], [0.4, 0.9, -0.2], [0, 1, 0]])
def test_vllm_answers_as_transformers(vllm, plain, mixing) -> None:
    weights = None if mixing is None else {"mixing": np.array(mixing, np.float32)}
    for engine in (vllm, plain):
        engine.install(weights)
    answers = plain.generate(PROMPTS, max_new_tokens=8, stop=["\n"])
    assert vllm.generate(PROMPTS, max_new_tokens=8, stop=["\n"]) == answers
    found, expected = (logprobs(engine.loglikelihood(PROMPTS, OPTIONS)) for engine in (vllm, plain))
    assert found == pytest.approx(expected, **NEAR)
    texts = ["rev abcd dcba", "sort ba"]
    found, expected = ([score.logprob for score in engine.rolling(texts)] for engine in (vllm, plain))
    assert found == pytest.approx(expected, **NEAR)
    drafts = [line[0] for line in OPTIONS]
    found, expected = (e.verify(PROMPTS, drafts, max_new_tokens=8, logprobs=True) for e in (vllm, plain))
    for mine, theirs in zip(found, expected, strict=True):  # they stop at different tokens after the draft
        assert text(mine).startswith(text(theirs))
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected], **NEAR)


def test_fully_steered_it_answers_as_the_expert(vllm) -> None:
    for i, name in enumerate(NAMES):
        vllm.install({"mixing": np.eye(3, dtype=np.float32)[i]})
        alone = TransformersEngine().start_combined(
            Combination("mix", Member(BASE), (Member(BASE, world() / "experts" / name),))
        )
        alone.install({"mixing": np.ones(1, np.float32)})
        assert vllm.generate(PROMPTS, max_new_tokens=8) == alone.generate(PROMPTS, max_new_tokens=8)


def test_requests_of_one_batch_have_their_own_coefficients(vllm, plain, steering) -> None:
    """Some of them are without any: they are answered by the first model alone."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    rows = [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5], None, [0, 0, 1], [0.2, -0.3, 1.5]]
    inputs, settings, expected = [], [], []
    for prompt, row in zip(PROMPTS, rows, strict=True):
        plain.install(None if row is None else {"mixing": np.array(row, np.float32)})
        expected += plain.generate([prompt], max_new_tokens=8)
        extra = None if row is None else {KEY: steering.weights(row).tolist()}
        inputs.append(TokensPrompt(prompt_token_ids=list(vllm._encoder.prompt(prompt))))
        ends = list(vllm._encoder.ends)
        settings.append(SamplingParams(temperature=0, max_tokens=8, stop_token_ids=ends, extra_args=extra))
    outputs = vllm._llm.generate(inputs, settings, use_tqdm=False)
    found = [vllm._encoder.text(p, o.outputs[0].token_ids) for p, o in zip(PROMPTS, outputs, strict=True)]
    assert found == expected


def test_another_vocabulary_is_refused_before_vllm_starts(tiny_llama: Path) -> None:
    combination = Combination("mix", Member(BASE), (Member(str(tiny_llama)),))
    with pytest.raises(UserError, match="its vocabulary is not that of"):
        VllmConfig(args=ARGS).start_combined(combination)
