"""Option scores against a log-softmax written out by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evoswarm.engine import TransformersEngine
from evoswarm.engine.base import answer
from evoswarm.engine.scoring import _batches
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError
from evoswarm.utility.types import Chat, Choose, OptionScore

PROMPTS = ["2 + 2 =", "The sky is blue and the grass is", "x"]
OPTIONS = [[" 4", " 5"], [" green", " red", " g"], ["y", "yes"]]


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_gpt2"])
def engine(request: pytest.FixtureRequest) -> HfEngine:
    folder = request.getfixturevalue(request.param)
    return HfEngine(TransformersEngine(device="cpu", batch_size=4), model=str(folder), adapter=None)


@torch.no_grad()
def by_hand(engine: HfEngine, prompt: str, option: str) -> OptionScore:
    start = len(engine.tokenizer(prompt).input_ids)
    ids = engine.tokenizer(prompt + option).input_ids
    logprobs = torch.log_softmax(engine.model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return OptionScore(sum(float(logprobs[i - 1, ids[i]]) for i in range(start, len(ids))), len(ids) - start)


@contextmanager
def forwards(engine: HfEngine) -> Iterator[list[int]]:
    """Batch sizes of the forward passes made inside."""
    sizes: list[int] = []
    hook = engine.model.register_forward_pre_hook(
        lambda _, __, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield sizes
    hook.remove()


def test_scores_are_the_log_softmax_of_the_options_tokens(engine: HfEngine) -> None:
    found = engine.loglikelihood(PROMPTS, OPTIONS)
    for prompt, options, scores in zip(PROMPTS, OPTIONS, found, strict=True):
        expected = [by_hand(engine, prompt, option) for option in options]
        assert [s.tokens for s in scores] == [e.tokens for e in expected]
        assert [s.logprob for s in scores] == pytest.approx([e.logprob for e in expected], abs=1e-4)
    assert [s.tokens for s in found[1]] == [6, 4, 2]


def test_scores_are_the_same_alone_and_in_a_batch_of_other_lengths(engine: HfEngine) -> None:
    together = engine.loglikelihood(PROMPTS, OPTIONS)
    for prompt, options, scores in zip(PROMPTS, OPTIONS, together, strict=True):
        ((*alone,),) = engine.loglikelihood([prompt], [options])
        assert [s.logprob for s in scores] == pytest.approx([s.logprob for s in alone], abs=1e-4)


def test_options_of_one_token_share_one_forward_pass(engine: HfEngine) -> None:
    with forwards(engine) as sizes:
        scores = engine.loglikelihood(["Answer: "] * 3, [list("ABCD")] * 3)
    assert sizes == [1]
    assert scores[0] == scores[1] == scores[2] and len(scores[0]) == 4


def test_the_prompts_of_longer_options_are_computed_once(engine: HfEngine) -> None:
    prompts, options = ["ab is", "abc is", "a is"], [[" big", " red"], [" x", " small"], [" one", " two", " three"]]
    with forwards(engine) as sizes:
        found = engine.loglikelihood(prompts, options)
    assert sizes == [2, 4, 1, 3]
    for prompt, row, scores in zip(prompts, options, found, strict=True):
        assert [s.logprob for s in scores] == pytest.approx([by_hand(engine, prompt, o).logprob for o in row], abs=1e-4)


def test_different_inputs_are_put_into_batches_of_the_engines_size(engine: HfEngine) -> None:
    with forwards(engine) as sizes:
        engine.loglikelihood([f"{i} is" for i in range(6)], [["A", "B"]] * 6)
    assert sizes == [4, 2]


def test_an_empty_prompt_is_scored_after_the_first_token(engine: HfEngine) -> None:
    bos = engine.tokenizer.bos_token_id
    ((score,),) = engine.loglikelihood([""], [["ab"]])
    with torch.no_grad():
        ids = torch.tensor([[bos, *engine.tokenizer("ab", add_special_tokens=False).input_ids]])
        logprobs = torch.log_softmax(engine.model(ids).logits[0], dim=-1)
    assert score.logprob == pytest.approx(float(logprobs[0, ids[0, 1]] + logprobs[1, ids[0, 2]]), abs=1e-4)


def test_a_tokenizer_that_adds_no_bos_scores_an_empty_prompt_too(tiny_llama: Path, tmp_path: Path) -> None:
    with_bos = HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=None)
    without = shutil.copytree(tiny_llama, tmp_path / "without")
    tokenizer = json.loads((without / "tokenizer.json").read_text())
    (without / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    engine = HfEngine(TransformersEngine(device="cpu"), model=str(without), adapter=None)
    assert engine._encoder.prompt("ab") == tuple(engine.tokenizer.convert_tokens_to_ids(["a", "b"]))
    assert engine.loglikelihood([""], [["ab"]]) == with_bos.loglikelihood([""], [["ab"]])


def test_a_better_fitting_option_has_the_higher_score(engine: HfEngine) -> None:
    greedy = engine.generate([PROMPTS[0]], max_new_tokens=1)[0]
    ((best, other),) = engine.loglikelihood([PROMPTS[0]], [[greedy, "#" if greedy != "#" else "!"]])
    assert best.logprob > other.logprob


def test_long_prompts_and_long_options_of_different_requests_fit_into_one_slice(engine: HfEngine) -> None:
    longest = engine.model.config.max_position_embeddings
    prompts, options = ["x" * (longest - 4), "ab"], [["cd", "ef"], ["g" * (longest // 2), "h"]]
    together = engine.loglikelihood(prompts, options)
    for prompt, row, scores in zip(prompts, options, together, strict=True):
        expected = [by_hand(engine, prompt, option).logprob for option in row]
        assert [score.logprob for score in scores] == pytest.approx(expected, rel=1e-5, abs=1e-4)
    with pytest.raises(UserError, match="the model takes"):
        engine.loglikelihood(["x" * longest], [["abcd", "ef"]])


def test_an_option_is_greedy_if_the_model_would_write_it(engine: HfEngine) -> None:
    prompts = [prompt + end for prompt in PROMPTS for end in ("", " and", " 7")]
    written = {p: text for p, text in zip(prompts, engine.generate(prompts, max_new_tokens=3), strict=True)}
    written = {prompt: text for prompt, text in written.items() if len(text) == 3}  # others have special tokens
    assert len(written) > 1
    rows = [[text, text[:1], text[:-1] + ("#" if text[-1] != "#" else "!")] for text in written.values()]
    for scores in engine.loglikelihood(list(written), rows):
        assert [score.greedy for score in scores] == [True, True, False]
    for scores in engine.loglikelihood(list(written), [[text[0], "~"] for text in written.values()]):
        assert [score.greedy for score in scores] == [True, False]  # options of one token are scored without branches


@torch.no_grad()
def test_a_text_longer_than_the_context_is_scored_in_windows_as_lm_eval_does(engine: HfEngine) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    size, tokenizer = engine.model.config.max_position_embeddings, engine.tokenizer
    texts = ["ab", "the rain in Spain stays mainly in the plain. " * (size // 12), "x" * (size - 1), "x" * size]
    for text, score in zip(texts, engine.rolling(texts), strict=True):
        ids, start = tokenizer(text).input_ids, tokenizer.bos_token_id
        windows = list(get_rolling_token_windows(ids, prefix_token=start, max_seq_len=size, context_len=1))
        assert engine._encoder.windows(text) == [
            (tuple(before), tuple(part)) for before, part in map(make_disjoint_window, windows)
        ]
        expected = 0.0
        for before, part in windows:
            logprobs = torch.log_softmax(engine.model(torch.tensor([before])).logits[0].double(), -1)[-len(part) :]
            expected += float(logprobs.gather(1, torch.tensor(part)[:, None]).sum())
        assert score.logprob == pytest.approx(expected, rel=1e-5) and score.tokens == len(ids)


def test_long_options_are_computed_in_batches_of_bounded_memory() -> None:
    longest = {(i,): size for i, size in enumerate([1, 2, 9, 3, 3, 3])}
    assert [len(batch) for batch in _batches(longest, 4, 9)] == [2, 1, 3]
    assert [len(batch) for batch in _batches(longest, 2, 100)] == [2, 2, 2]


def test_the_options_of_one_request_may_follow_different_prompts(engine: HfEngine) -> None:
    prompts, options = ("2 + 2 =", "2 + 2 =", ""), (" 4", " 5", " 4")
    requests = [Choose(prompts[0], options, prompts), Choose("x", ("y",)), Choose("", ("ab c",), rolling=True)]
    found = [reply.response for reply in answer(engine, requests)]
    pairs = engine.loglikelihood(["2 + 2 =", "", "x"], [options[:2], options[2:], ["y"]])
    assert [s.logprob for s in found[0]] == pytest.approx([s.logprob for s in [*pairs[0], *pairs[1]]], abs=1e-4)
    assert found[1][0].logprob == pytest.approx(pairs[2][0].logprob, abs=1e-4)
    assert found[2] == (engine.rolling(["ab c"])[0],)


def test_white_space_at_the_end_of_a_chat_can_belong_to_the_options(engine: HfEngine) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}: "
    chat = Chat((("user", "ab"),), template=template, space_in_options=True)
    ((score,),) = engine.loglikelihood([chat], [["c"]])
    ((spaced,),) = engine.loglikelihood([replace(chat, template=template.rstrip())], [[" c"]])
    assert score == spaced and score.tokens == 2
