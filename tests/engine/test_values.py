"""Value models: what they add to the likeliest next tokens, compared with texts computed anew for each candidate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import BOS, EOS, SPECIAL, load, make_tokenizer, save_llama
from tiny_scorers import save_scorer
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.rules import valued
from evoswarm.engine.combined.transformers import CombinedEngine
from evoswarm.engine.combined.values import ValueNetwork
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError
from evoswarm.utility.types import Prefix

CONFIG = TransformersEngine()
START = "Answer the question.\n"
PROMPTS = [START + text for text in ("2 + 2 = ?", "name a color that is not red", "x")]
OPTIONS = [("4", "5", "twelve"), ("blue", "a red one"), ("y", "zz", "xyx")]
TEXTS = ["a text", "another, longer text that is not a prompt"]
CANDIDATES = 5
Naive = Callable[[list[int]], torch.Tensor]
"""Log-probabilities [V] of the token after some tokens."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two value models of other architectures and sizes, and a base with an expert that steers."""
    folder = tmp_path_factory.mktemp("values")
    save_llama(folder / "model", seed=7, hidden_size=96, spread=0.1)
    save_scorer(folder / "llama")
    torch.manual_seed(4)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.5}
    gpt2 = GPT2ForSequenceClassification(GPT2Config(vocab_size=len(make_tokenizer()), num_labels=1, **sizes))
    gpt2.save_pretrained(folder / "gpt2")
    save_llama(folder / "small")
    save_llama(folder / "tuned", seed=3)
    return folder


def combination_of(folder: Path, *, candidates: int = CANDIDATES) -> Combination:
    values = (Member(str(folder / name), value=True) for name in ("llama", "gpt2"))
    experts = (next(values), Member(str(folder / "tuned")), next(values))
    return Combination("steering", Member(str(folder / "model")), experts, Member(str(folder / "small")), candidates)


def engine_of(combination: Combination, mixing: list[float]) -> CombinedEngine:
    engine = CombinedEngine(CONFIG, combination=combination)
    engine.install({"mixing": np.array(mixing, np.float32)})
    return engine


def naive_of(folder: Path, mixing: list[float]) -> Naive:
    """Equation 2 of the paper by hand: one whole pass of the value model for each candidate, without a cache."""
    model, small, tuned = (load(folder / name) for name in ("model", "small", "tuned"))
    values = [AutoModelForSequenceClassification.from_pretrained(folder / name).eval() for name in ("llama", "gpt2")]
    for one in values:
        one.config.pad_token_id = None  # the score is that of the last token, whichever it is
    betas = [mixing[0], mixing[2]]

    @torch.inference_mode()
    def naive(ids: list[int]) -> torch.Tensor:
        base, from_small, from_tuned = (
            one(torch.tensor([ids])).logits[0, -1].log_softmax(-1) for one in (model, small, tuned)
        )
        scores = (base + mixing[1] * (from_tuned - from_small)).log_softmax(-1)
        added = {
            token: sum(
                beta * float(one(torch.tensor([[*ids, token]])).logits) for one, beta in zip(values, betas, strict=True)
            )
            for token in scores.topk(CANDIDATES).indices.tolist()
        }
        total = scores + min(added.values())
        for token, value in added.items():
            total[token] = scores[token] + value
        assert set(total.topk(CANDIDATES).indices.tolist()) == set(added)
        return total.log_softmax(-1)

    return naive


@pytest.fixture(
    scope="module",
    params=[[2.0, 0, 0], [-1.5, 0, 0], [0, 0, 0.7], [0.8, 0.6, -0.9]],
    ids=["one", "negative", "gpt2", "with an expert that steers"],
)
def case(request: pytest.FixtureRequest, folder: Path) -> tuple[CombinedEngine, Naive]:
    return engine_of(combination_of(folder), request.param), naive_of(folder, request.param)


def _ids(text: str) -> list[int]:
    return make_tokenizer()(text).input_ids


def test_generation_is_that_of_every_candidate_computed_anew(case: tuple[CombinedEngine, Naive]) -> None:
    engine, naive = case
    answers = engine.generate(PROMPTS, max_new_tokens=6)
    verified = engine.verify(PROMPTS, answers, max_new_tokens=6)
    wrong = engine.verify(PROMPTS, [answer[:1] + "#" for answer in answers], max_new_tokens=6)
    written = 0
    for prompt, answer, found, other in zip(PROMPTS, answers, verified, wrong, strict=True):
        ids = _ids(prompt)
        for _ in range(6):
            ids.append(int(naive(ids).argmax()))
            if ids[-1] == EOS:
                break
        own = ids[len(_ids(prompt)) :]
        assert answer == make_tokenizer().decode(own, skip_special_tokens=True)
        if min(own) >= len(SPECIAL):  # others are not in the text, which is no draft of them
            written += 1
            assert (found.reply, other.reply) == (answer, Prefix(answer[:2]))
    assert written


def test_options_and_texts_have_the_scores_of_every_candidate_computed_anew(case: tuple[CombinedEngine, Naive]) -> None:
    engine, naive = case

    def by_hand(ids: list[int], start: int) -> float:
        return sum(float(naive(ids[:i])[ids[i]]) for i in range(start, len(ids)))

    for prompt, line, found in zip(PROMPTS, OPTIONS, engine.loglikelihood(PROMPTS, OPTIONS), strict=True):
        expected = [by_hand(_ids(prompt + option), len(_ids(prompt))) for option in line]
        assert [score.logprob for score in found] == pytest.approx(expected, rel=1e-4)
    first, *_ = engine.loglikelihood(PROMPTS[:1], [("4", "5")])
    expected = [by_hand(_ids(PROMPTS[0] + option), len(_ids(PROMPTS[0]))) for option in "45"]
    assert [score.logprob for score in first] == pytest.approx(expected, rel=1e-4)
    text = [BOS, *_ids(TEXTS[0])]
    assert engine.rolling(TEXTS)[0].logprob == pytest.approx(by_hand(text, 1), rel=1e-4)


def test_candidates_in_parts_have_the_same_scores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(combination_of(folder), [1.0, 0, 0.5])
    whole = [score.logprob for score in engine.rolling(TEXTS)]
    monkeypatch.setattr("evoswarm.engine.combined.values.MOST_TOKENS", 6 * CANDIDATES)
    assert [score.logprob for score in engine.rolling(TEXTS)] == pytest.approx(whole, rel=1e-5)


def test_without_a_coefficient_the_model_answers_as_itself(folder: Path) -> None:
    engine = CombinedEngine(CONFIG, combination=combination_of(folder))
    alone = HfEngine(CONFIG, model=str(folder / "model"), adapter=None)
    for weights in (None, {"mixing": np.zeros(3, np.float32)}):
        engine.install(weights)
        answers = alone.generate(PROMPTS, max_new_tokens=8)
        assert engine.generate(PROMPTS, max_new_tokens=8) == answers
        assert engine.loglikelihood(PROMPTS, OPTIONS) == alone.loglikelihood(PROMPTS, OPTIONS)
        assert engine.rolling(TEXTS) == alone.rolling(TEXTS)


def test_a_value_model_changes_the_answers_and_more_candidates_than_tokens_are_all_tokens(folder: Path) -> None:
    plain = engine_of(combination_of(folder), [0, 0, 0]).generate(PROMPTS, max_new_tokens=8)
    few = engine_of(combination_of(folder), [2.0, 0, 0]).generate(PROMPTS, max_new_tokens=8)
    everything = engine_of(combination_of(folder, candidates=1000), [2.0, 0, 0]).generate(PROMPTS, max_new_tokens=8)
    one = engine_of(combination_of(folder, candidates=1), [2.0, 0, 0]).generate(PROMPTS, max_new_tokens=8)
    assert len({tuple(answers) for answers in (plain, few, everything)}) == 3 and one == plain


def test_other_tokens_stay_below_all_candidates() -> None:
    logprobs = torch.tensor([[[0.5, 0.3, 0.15, 0.05]]]).log()
    found = valued(logprobs, torch.tensor([[[0, 1]]]), torch.tensor([[[-9.0, -1.0]]]))
    assert (found - logprobs).tolist()[0][0] == pytest.approx([-9, -1, -9, -9])
    assert found.argsort(descending=True).tolist() == [[[1, 0, 2, 3]]]


def test_a_text_as_long_as_the_value_model_takes_is_scored(folder: Path) -> None:
    """GPT-2 has 128 positions, the last of which is that of the candidate after 127 tokens."""
    engine = engine_of(combination_of(folder), [0, 0, 1.0])
    assert engine._network.longest == 127
    assert np.isfinite(engine.rolling(["a" * 200])[0].logprob)
    assert len(engine.generate(["a" * 120], max_new_tokens=20)) == 1


def test_a_model_whose_keys_and_values_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    model = Qwen2ForSequenceClassification(Qwen2Config(vocab_size=50, num_labels=1, **sizes, **sliding))
    with pytest.raises(UserError, match="use a value model with full attention"):
        ValueNetwork(model)
