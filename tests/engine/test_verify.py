"""One forward pass tells what generation would: the whole answer, or how it begins where it leaves the draft."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from evoswarm.engine import TransformersEngine
from evoswarm.engine.base import Engine, answer
from evoswarm.engine.transformers import HfEngine
from evoswarm.utility.types import Generate, Prefix

PROMPTS = ["a", "What is 2 + 3?", "The quick brown fox jumps over the lazy dog.", "zz", "", "7"]
LENGTH = 6


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_gpt2"])
def engine(request: pytest.FixtureRequest) -> HfEngine:
    folder = request.getfixturevalue(request.param)
    return HfEngine(TransformersEngine(device="cpu"), model=str(folder), adapter=None)


@pytest.fixture(scope="module")
def greedy(engine: HfEngine) -> list[str]:
    return engine.generate(PROMPTS, max_new_tokens=LENGTH)


def replies(
    engine: Engine, prompts: Sequence[str], drafts: Sequence[str], *, stop: Sequence[str] = (), most: int = LENGTH
) -> list[str | Prefix]:
    return [found.reply for found in engine.verify(prompts, drafts, max_new_tokens=most, stop=stop)]


def unlike(text: str, at: int) -> str:
    """A draft that agrees up to `at` and no further."""
    return text[:at] + ("A" if text[at : at + 1] != "A" else "B") + text[at:]


def test_a_draft_that_is_the_greedy_answer_comes_back_whole(engine: HfEngine, greedy: list[str]) -> None:
    assert len(set(greedy)) > 1
    assert replies(engine, PROMPTS, greedy) == greedy


@pytest.mark.parametrize("kept", range(LENGTH - 1))
def test_another_draft_gives_the_greedy_answer_up_to_where_they_part(
    engine: HfEngine, greedy: list[str], kept: int
) -> None:
    found = replies(engine, PROMPTS, [unlike(text, kept) for text in greedy])
    for text, reply in zip(greedy, found, strict=True):
        assert reply == (text if len(text) <= kept else Prefix(text[: kept + 1]))


def test_a_draft_that_stops_short_says_how_the_answer_continues(engine: HfEngine, greedy: list[str]) -> None:
    for text, reply in zip(greedy, replies(engine, PROMPTS, [""] * len(PROMPTS)), strict=True):
        assert reply == (Prefix(text[:1]) if text else text)


def test_a_draft_longer_than_the_answer_may_be_is_cut(engine: HfEngine, greedy: list[str]) -> None:
    assert replies(engine, PROMPTS, [text + "and so on" for text in greedy])[1:4] == greedy[1:4]


def test_a_stop_string_ends_the_answer_as_in_generation(engine: HfEngine, greedy: list[str]) -> None:
    stop = (next(text for text in greedy if len(text) > 2)[1],)
    expected = engine.generate(PROMPTS, max_new_tokens=LENGTH, stop=stop)
    assert expected != greedy
    assert replies(engine, PROMPTS, greedy, stop=stop) == expected


def test_only_what_is_not_ruled_out_is_generated(engine: HfEngine, greedy: list[str]) -> None:
    drafts = [greedy[0], unlike(greedy[1], 0), unlike(greedy[2], 0)]
    requests = [Generate(p, LENGTH, draft=d) for p, d in zip(PROMPTS, drafts, strict=False)]
    requests.append(Generate(PROMPTS[3], LENGTH))
    asked: list[tuple[int, str]] = []

    def ruled_out(position: int, beginning: str) -> bool:
        asked.append((position, beginning))
        return position == 1

    found = [reply.response for reply in answer(engine, requests, ruled_out=ruled_out)]
    assert found == [greedy[0], Prefix(greedy[1][0]), greedy[2], greedy[3]]
    assert asked == [(1, greedy[1][0]), (2, greedy[2][0])]
    assert [reply.response for reply in answer(engine, requests)] == greedy[:4]


def test_what_may_become_a_stop_string_is_not_taken_for_the_answer(engine: HfEngine, greedy: list[str]) -> None:
    text = greedy[1]
    for stop in ((text[2:4],), (text[2:5], text[3]), (text[1:3], text[2:4])):
        expected = engine.generate([PROMPTS[1]], max_new_tokens=LENGTH, stop=stop)[0]
        assert expected != text
        for kept in range(LENGTH):
            (reply,) = replies(engine, [PROMPTS[1]], [unlike(text, kept)], stop=stop)
            assert reply == expected or (isinstance(reply, Prefix) and expected.startswith(reply.text))


def test_nothing_behind_an_end_token_counts(engine: HfEngine, greedy: list[str], tmp_path: Path) -> None:
    third = engine.tokenizer(greedy[1], add_special_tokens=False).input_ids[2]
    folder = shutil.copytree(engine.model.config.name_or_path, tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": third}))
    ending = HfEngine(TransformersEngine(device="cpu"), model=str(folder), adapter=None)
    expected = ending.generate([PROMPTS[1]], max_new_tokens=LENGTH)
    assert len(expected[0]) < LENGTH
    assert replies(ending, [PROMPTS[1]], [greedy[1]]) == expected


def test_a_draft_is_cut_where_the_model_takes_no_more(engine: HfEngine) -> None:
    longest = engine.model.config.max_position_embeddings
    prompts = ["x" * (longest - 9), "y"]
    for reply in replies(engine, prompts, ["A" * 60, "B" * 60], most=64):
        assert isinstance(reply, Prefix)


def test_only_in_float32_is_verifying_as_good_as_generating(tiny_llama: Path) -> None:
    made = {
        dtype: HfEngine(TransformersEngine(device="cpu", dtype=dtype), model=str(tiny_llama), adapter=None).exact
        for dtype in ("float32", "bfloat16", "float16")
    }
    assert made == {"float32": True, "bfloat16": False, "float16": False}


@pytest.mark.parametrize("stop", [(), ("x",), ("B",)])
def test_the_log_probability_of_a_draft_includes_its_end(engine: HfEngine, greedy: list[str], stop: tuple) -> None:
    drafts = ["1", "ok", greedy[2], "a b c"]
    found = engine.verify(PROMPTS[:4], drafts, max_new_tokens=12, stop=stop, logprobs=True)
    ends = [engine.tokenizer.decode([i]) for i in engine._encoder.ends] + list(stop)
    scored = engine.loglikelihood(PROMPTS[:4], [[draft + end for end in ends] for draft in drafts])
    for verified, options in zip(found, scored, strict=True):
        assert verified.logprob == pytest.approx(math.log(math.fsum(math.exp(o.logprob) for o in options)), abs=1e-4)


def test_the_first_token_of_a_long_stop_string_ends_a_draft(engine: HfEngine) -> None:
    found, short = (
        engine.verify(PROMPTS[:1], ["ok"], max_new_tokens=12, stop=stop, logprobs=True)[0].logprob
        for stop in (("xyz",), ("x",))
    )
    assert found == short


def test_a_draft_that_fills_the_limit_needs_no_end(engine: HfEngine) -> None:
    (verified,) = engine.verify(["7"], ["abc"], max_new_tokens=3, logprobs=True)
    ((option,),) = engine.loglikelihood(["7"], [["abc"]])
    assert option.tokens == 3 and verified.logprob == pytest.approx(option.logprob, abs=1e-4)


def test_log_probabilities_are_given_without_verifying_too(engine: HfEngine, greedy: list[str]) -> None:
    requests = [Generate(PROMPTS[1], LENGTH, draft="A"), Generate(PROMPTS[2], LENGTH)]
    first, second = answer(engine, requests, logprobs=True)
    (verified,) = engine.verify([PROMPTS[1]], ["A"], max_new_tokens=LENGTH, logprobs=True)
    assert (first.response, second.response) == (greedy[1], greedy[2])
    assert first.draft_logprob == pytest.approx(verified.logprob) and second.draft_logprob is None
