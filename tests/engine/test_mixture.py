"""Several experts that answer as one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.mixture import MixtureEngine, uniform
from evoswarm.engine.transformers import HfEngine
from evoswarm.rows import Row
from evoswarm.toy import world
from evoswarm.utility import Chat
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

NAMES = ["add", "rev", "sort"]
PROMPTS = [Chat((("user", text),)) for text in ("rev abcd", "sort dcab", "add 12 30", "rev jihg")]
OPTIONS = [("dcba", "abcd"), ("abcd", "dcab"), ("42", "41"), ("ghij", "jihg")]
CONFIG = TransformersEngine()


@pytest.fixture(scope="module")
def parts():
    folder = world()
    pool = open_pool(PoolConfig(experts=[folder / "experts" / name for name in NAMES]), model=str(folder / "base"))
    weights = Materializer(pool).all([Row.one(name) for name in NAMES])
    settings = {"model": str(folder / "base"), "adapter": pool.adapter}
    members = tuple(Member(str(folder / "base"), folder / "experts" / name) for name in NAMES)
    mixture = MixtureEngine(CONFIG, combination=Combination("mix", Member(str(folder / "base")), members))
    return mixture, HfEngine(CONFIG, **settings), weights


def only(j):
    return lambda engine, prompts: torch.eye(engine.experts)[[j] * len(prompts)]


def by_prompt(engine, prompts):
    """Each prompt is put to the expert of its skill alone."""
    return torch.eye(3)[[NAMES.index(prompt.text.split()[0]) for prompt in prompts]]


def test_one_expert_with_all_the_weight_answers_as_itself(parts) -> None:
    mixture, single, weights = parts
    for j, expert in enumerate(weights):
        mixture.weigh = only(j)
        single.install(expert)
        assert mixture.generate(PROMPTS, max_new_tokens=8) == single.generate(PROMPTS, max_new_tokens=8)
        drafts = [line[0] for line in OPTIONS]
        assert mixture.verify(PROMPTS, drafts, max_new_tokens=8) == single.verify(PROMPTS, drafts, max_new_tokens=8)
        mine = [[o.logprob for o in line] for line in mixture.loglikelihood(PROMPTS, OPTIONS)]
        theirs = [[o.logprob for o in line] for line in single.loglikelihood(PROMPTS, OPTIONS)]
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_every_prompt_is_answered_with_its_own_weights(parts) -> None:
    mixture, single, weights = parts
    mixture.weigh = by_prompt
    answers = mixture.generate(PROMPTS, max_new_tokens=8)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        single.install(weights[NAMES.index(prompt.text.split()[0])])
        assert single.generate([prompt], max_new_tokens=8) == [answer]


def test_probabilities_are_mixed_and_not_their_logarithms(parts) -> None:
    """The first token of an option: p = sum w_i p_i."""
    mixture, single, weights = parts
    prompt, option = PROMPTS[2], "4"
    mixture.weigh = lambda engine, prompts: torch.tensor([[0.7, 0.1, 0.2]] * len(prompts))
    ((mixed, _),) = mixture.loglikelihood([prompt], [(option, "5")])
    assert mixed.tokens == 1
    chances = []
    for expert in weights:
        single.install(expert)
        ((score, _),) = single.loglikelihood([prompt], [(option, "5")])
        chances.append(math.exp(score.logprob))
    assert math.exp(mixed.logprob) == pytest.approx(np.dot([0.7, 0.1, 0.2], chances), rel=1e-4)


def test_free_generation_is_what_verification_confirms(parts) -> None:
    mixture, _, _ = parts
    mixture.weigh = uniform
    answers = mixture.generate(PROMPTS, max_new_tokens=8)
    assert [found.reply for found in mixture.verify(PROMPTS, answers, max_new_tokens=8)] == answers


def test_surprise_is_the_mean_negative_log_probability_of_the_prompt(parts) -> None:
    mixture, single, weights = parts
    prompts = ["rev abcd", "sort ab"]
    found = mixture.surprise(prompts)
    for j, expert in enumerate(weights):
        single.install(expert)
        for i, prompt in enumerate(prompts):
            ids = torch.tensor([single._encoder.prompt(prompt)])
            with torch.no_grad():
                logprobs = single.model(ids).logits.log_softmax(-1)[0, :-1]
            expected = -logprobs.gather(1, ids[0, 1:, None]).mean()
            assert float(found[i, j]) == pytest.approx(float(expected), rel=1e-4)


def test_the_experts_share_what_they_do_not_adapt(parts) -> None:
    mixture, _, _ = parts
    first, second = (dict(one.model.named_parameters()) for one in mixture._network.networks[:2])
    shared = [name for name in first if first[name].data_ptr() == second[name].data_ptr()]
    assert any("embed" in name for name in shared) and not any("q_proj" in name for name in shared)
