"""The log-probability of the right answer in a model's own text, on real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evoswarm.backend.gold import gold_logprobs
from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.engine import TransformersEngine
from evoswarm.engine.transformers import HfEngine
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import Chat, Choose, Generate, Outcome
from evoswarm.weights.pool import open_pool

CHAT = Chat((("user", "What is 2 + 3?"),))


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> HfEngine:
    return HfEngine(TransformersEngine(device="cpu"), model=str(tiny_llama), adapter=None)


@pytest.mark.parametrize("prompt", ["What is 2 + 3?\n", CHAT])
def test_it_is_that_of_the_answer_given_prompt_and_own_text(engine: HfEngine, prompt: str | Chat) -> None:
    lead, text = "2 and 3, so the answer is", " 5."
    begun = Chat(prompt.messages, begun=lead) if isinstance(prompt, Chat) else prompt + lead
    ((before, whole),) = engine.loglikelihood([prompt], [[lead, lead + text]])
    found = gold_logprobs(engine, {3: Choose(begun, (text,))}, of=None)
    assert found == {3: pytest.approx(whole.logprob - before.logprob, abs=1e-3)}


def test_an_answer_at_the_end_includes_the_end(engine: HfEngine) -> None:
    ends = [engine.tokenizer.decode([i]) for i in engine._encoder.ends]
    (options,) = engine.loglikelihood(["It is"], [[" 5" + end for end in ends]])
    found = gold_logprobs(engine, {0: Generate("It is", 8, draft=" 5")}, of=None)
    assert found[0] == pytest.approx(np.logaddexp.reduce([option.logprob for option in options]), abs=1e-3)


def test_what_is_too_long_for_the_model_is_unknown_and_nothing_else(engine: HfEngine) -> None:
    longest = engine.model.config.max_position_embeddings
    requests = {0: Choose("a", (" b.",)), 1: Choose("x" * longest, (" b.",)), 2: Generate("y" * longest, 8, draft="zz")}
    found = gold_logprobs(engine, requests, of=None)
    assert set(found) == {0} and found == gold_logprobs(engine, {0: requests[0]}, of=None)


def outcomes(expert_at: int = 0, **utility: Any) -> list[Outcome]:
    """One expert of the toy world on some examples."""
    data = target_config("trio", algorithm="bayes")
    data["utility"] = data["utility"] | {"data": {"path": data["utility"]["data"], "limit": 60}} | utility
    config = parse_config(data, root=world())
    pool = open_pool(config.pool, model=config.model)
    worker = Worker(config, pool=pool)
    expert = pool.experts[expert_at]
    weights = {name: expert.flat(name).reshape(s.shape) for name, s in expert.specs.items()}
    numbers = range(len(worker.slices("validation").indices))
    pieces = [Piece(expert.name, weights, "validation", number, False, True) for number in numbers]
    return [outcome for result in worker.work(pieces).results for outcome in result]  # type: ignore[misc]


def test_an_answer_that_is_the_whole_text_has_the_log_probability_of_the_draft() -> None:
    drafted, located = outcomes(), outcomes(extract="(?s)(.+)")
    assert [o.score for o in drafted] == [o.score for o in located]
    pairs = [(a.logprobs, b.logprobs) for a, b in zip(drafted, located, strict=True) if b.logprobs]
    assert len(pairs) > 50
    np.testing.assert_allclose(*map(list, zip(*pairs, strict=True)), atol=1e-4)


def test_right_answers_are_more_likely_where_the_model_is_right() -> None:
    found = outcomes(extract=r"(\w+)", expert_at=7)
    by_score = {score: [o.logprobs[0] for o in found if o.score == score and o.logprobs] for score in (0.0, 1.0)}
    assert min(map(len, by_score.values())) > 5
    assert np.mean(by_score[1.0]) > np.mean(by_score[0.0]) + 1
