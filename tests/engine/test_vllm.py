"""The real vLLM, on its CPU build, against the transformers engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evoswarm.backend.gold import gold_logprobs
from evoswarm.config.load import parse_config
from evoswarm.engine import TransformersEngine
from evoswarm.engine import VllmEngine as VllmConfig
from evoswarm.engine.base import AdaptersNotSupported, Engine, answer
from evoswarm.engine.vllm import VllmEngine
from evoswarm.errors import UserError
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS
from evoswarm.utility import Chat, Outcome, Utility, make_utility
from evoswarm.utility.types import Choose, Generate, Prefix, Request
from evoswarm.weights.expert import open_expert

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")

BASE, EXPERTS = str(world() / "base"), sorted(p.name for p in (world() / "experts").iterdir())
BLOCK = 32
LONG = ["sort dbacf next dbaj rot dbac swap dbac " + tail for tail in ("rev abcd", "rev dcba", "add 12 34")]
DIFFERENCES = 1
"""Examples of 200 in which near-ties may fall differently; on the machines tried there was none."""


def weights(expert: str) -> dict:  # type: ignore[type-arg]
    opened = open_expert(world() / "experts" / expert)
    return {name: opened.flat(name).reshape(spec.shape) for name, spec in opened.specs.items()}


ADAPTER = open_expert(world() / "experts" / EXPERTS[0]).config


@pytest.fixture(scope="module")
def vllm() -> VllmEngine:
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": BLOCK}
    engine = VllmConfig(args=args).start(model=BASE, adapter=ADAPTER)
    assert isinstance(engine, VllmEngine)
    return engine


@pytest.fixture(scope="module")
def beside() -> VllmEngine:
    """An engine that answers as several particles in one batch."""
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": BLOCK}
    config = VllmConfig(adapter_mode="multi_lora", max_loras=4, args=args)
    engine = config.start(model=BASE, adapter=ADAPTER)
    assert isinstance(engine, VllmEngine)
    return engine


@pytest.fixture(scope="module")
def reference() -> Engine:
    return TransformersEngine().start(model=BASE, adapter=ADAPTER)


def utility_of(target: str) -> Utility:
    config = parse_config(target_config(target, algorithm="model_swarms"), root=world())
    return make_utility(config.utility, root=config.root)


def responses(engine: Engine, requests: Sequence[Request], **options: Any) -> list[Any]:
    return [reply.response for reply in answer(engine, requests, **options)]


def outcomes(engine: Engine, utility: Utility, *, verify: bool = False) -> list[Outcome]:
    def ruled_out(index: int, beginning: str) -> bool:
        return utility.ruled_out("validation", index, beginning)

    replies = answer(engine, utility.requests("validation"), ruled_out=ruled_out if verify else None)
    wrong = Outcome(0.0, None)
    return [
        wrong if isinstance(reply.response, Prefix) else utility.outcome("validation", i, reply.response)
        for i, reply in enumerate(replies)
    ]


def differing(left: Sequence[Outcome], right: Sequence[Outcome]) -> int:
    return sum(a.score != b.score for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=[] if name == "letters" else [pytest.mark.slow]) for name in TARGETS]
)
def test_every_toy_expert_has_the_utility_that_transformers_gives(
    vllm: VllmEngine, reference: Engine, target: str
) -> None:
    utility, found = utility_of(target), set()
    for expert in EXPERTS:
        vllm.install(weights(expert))
        reference.install(weights(expert))
        expected = outcomes(reference, utility)
        assert differing(outcomes(vllm, utility), expected) <= DIFFERENCES
        assert differing(outcomes(vllm, utility, verify=True), expected) <= DIFFERENCES
        found.add(sum(outcome.score or 0 for outcome in expected))
    assert len(found) > 3


def test_log_likelihoods_agree_to_a_thousandth(vllm: VllmEngine, reference: Engine) -> None:
    prompts = ["eats bebu", "home", LONG[0]]
    options = [["plum", "figs", "x"], ["a", "b"], [" 4", " 5", " 17"]]
    for expert in (None, "eats"):
        for engine in (vllm, reference):
            engine.install(weights(expert) if expert else None)
        found, expected = vllm.loglikelihood(prompts, options), reference.loglikelihood(prompts, options)
        for row, other in zip(found, expected, strict=True):
            assert [score.tokens for score in row] == [score.tokens for score in other]
            assert [s.logprob for s in row] == pytest.approx([s.logprob for s in other], abs=1e-3)


def test_whole_texts_have_the_log_likelihood_that_transformers_gives(vllm: VllmEngine, reference: Engine) -> None:
    vllm.install(None)
    reference.install(None)
    for one, other in zip(vllm.rolling(LONG), reference.rolling(LONG), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.01) and one.tokens == other.tokens
    (long,) = vllm.rolling([" ".join(LONG)])
    assert long.logprob < 0 and long.tokens == len(vllm._encoder.prompt(" ".join(LONG)))


def test_options_are_greedy_where_transformers_finds_them_greedy(vllm: VllmEngine, reference: Engine) -> None:
    vllm.install(None)
    reference.install(None)
    written = reference.generate(LONG, max_new_tokens=3)
    rows = [[text, text[:1], text + "zz", "zz"] for text in written]
    expected = [[o.greedy for o in line] for line in reference.loglikelihood(LONG, rows)]
    assert [[o.greedy for o in line] for line in vllm.loglikelihood(LONG, rows)] == expected
    assert all(line[:2] == [True, True] and not any(line[2:]) for line in expected)


def test_a_particle_answers_the_same_before_and_after_another(vllm: VllmEngine, reference: Engine) -> None:
    found = {}
    for turn, expert in enumerate(("rev", "sort", "rev", "sort")):
        vllm.install(weights(expert))
        found[turn] = vllm.generate(LONG, max_new_tokens=8)
        reference.install(weights(expert))
        assert found[turn] == reference.generate(LONG, max_new_tokens=8)
    assert found[0] == found[2] != found[1] == found[3]


def test_blocks_that_another_particle_computed_would_be_seen_if_the_cache_were_kept(
    vllm: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the test above rests on: prompts longer than a block, whose cached keys and values depend on the weights.
    vllm.install(weights("sort"))
    prompts, options = [text + " " for text in LONG], [["a", "d"]] * len(LONG)
    clean = vllm.loglikelihood(prompts, options)
    vllm.install(weights("rev"))
    vllm.loglikelihood(prompts, options)
    monkeypatch.setattr(vllm._llm, "reset_prefix_cache", lambda: True)
    vllm.install(weights("sort"))
    stale = vllm.loglikelihood(prompts, options)
    monkeypatch.undo()
    vllm.install(weights("sort"))
    again = vllm.loglikelihood(prompts, options)
    near = [pytest.approx(score.logprob, abs=1e-4) for row in clean for score in row]
    assert [score.logprob for row in again for score in row] == near
    assert [score.logprob for row in stale for score in row] != near


def test_the_base_comes_back_bit_for_bit(vllm: VllmEngine) -> None:
    # On a CPU vLLM packs the weights where they cannot be read: they show in every digit of what they compute.
    prompts, options = LONG + ["eats bebu", "add 3 4"], [["abcd", " 17", "x", "yz"]] * 5
    vllm.install(None)
    before = vllm.loglikelihood(prompts, options)
    for expert in ("rev", "add", "rev"):
        vllm.install(weights(expert))
        assert vllm.loglikelihood(prompts, options) != before
    vllm.install(None)
    assert vllm.loglikelihood(prompts, options) == before


def test_after_an_install_that_failed_the_engine_continues(vllm: VllmEngine) -> None:
    vllm.install(weights("rev"))
    expected = vllm.generate(LONG, max_new_tokens=8)
    broken = {name.replace("q_proj", "w_proj"): tensor for name, tensor in weights("sort").items()}
    with pytest.raises(UserError, match=r"w_proj\.weight is not in the base model"):
        vllm.install(broken)
    assert vllm.generate(LONG, max_new_tokens=8) == expected
    vllm.install(weights("sort"))
    assert vllm.generate(LONG, max_new_tokens=8) != expected


def test_an_answer_is_cut_at_a_stop_string_and_at_its_limit(vllm: VllmEngine, reference: Engine) -> None:
    for engine in (vllm, reference):
        engine.install(weights("rev"))
    prompts = [Chat((("user", f"rev {text}"),)) for text in ("abcd", "ddca", "abcde")]
    for settings in ({"max_new_tokens": 8, "stop": ("b",)}, {"max_new_tokens": 2}, {"max_new_tokens": 8}):
        assert vllm.generate(prompts, **settings) == reference.generate(prompts, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [(), ("a",)])
def test_drafts_have_the_log_probability_that_transformers_gives(
    vllm: VllmEngine, beside: VllmEngine, reference: Engine, stop: tuple[str, ...]
) -> None:
    requests = utility_of("letters").requests("validation")[:30]
    prompts, drafts = [r.prompt for r in requests], [r.draft for r in requests]
    found = []
    for engine in (reference, vllm, beside):
        engine.install(weights("rev"))
        verified = engine.verify(prompts, drafts, max_new_tokens=8, stop=stop, logprobs=True)
        found.append([v.logprob for v in verified])
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    np.testing.assert_allclose(found[2], found[0], atol=1e-3)


def test_right_answers_in_own_texts_have_the_log_probability_that_transformers_gives(
    vllm: VllmEngine, beside: VllmEngine, reference: Engine
) -> None:
    chats = [Chat((("user", f"rev {text}"),), begun=text[:2]) for text in ("abcd", "ddca", "abce", "bbac")]
    requests: dict[int, Request] = {i: Choose(chat, ("ab c",)) for i, chat in enumerate(chats[:2])}
    requests |= {2: Generate(chats[2], 8, draft="ba"), 3: Generate(chats[3], 8, ("c",), draft="ab")}
    found = []
    for engine in (reference, vllm, beside):
        engine.install(weights("rev"))
        found.append(gold_logprobs(engine, requests, of=None))
    assert all(set(values) == set(requests) for values in found)
    for values in found[1:]:
        np.testing.assert_allclose(list(values.values()), list(found[0].values()), atol=1e-3)


def test_answers_that_fill_the_context_end_at_the_same_token(vllm: VllmEngine, reference: Engine) -> None:
    for engine in (vllm, reference):
        engine.install(weights("rev"))
    prompts = ["rev " + "abcd" * 14, "rev " + "dcba" * 14 + "ab", "rev abcd", "rev " + "a" * 58]
    for settings in ({"max_new_tokens": 8}, {"max_new_tokens": 8, "stop": ("zz",)}):
        assert vllm.generate(prompts, **settings) == reference.generate(prompts, **settings)  # type: ignore[arg-type]
    full = [engine.loglikelihood(["x" * 51], [["a" * 13, "a"]]) for engine in (vllm, reference)]
    assert [s.logprob for s in full[0][0]] == pytest.approx([s.logprob for s in full[1][0]], abs=1e-3)
    for engine in (vllm, reference):
        with pytest.raises(UserError, match="the model takes 64 with the first of the answer"):
            engine.generate(["rev " + "a" * 60], max_new_tokens=8)


def test_the_sequences_of_each_step_are_counted(vllm: VllmEngine, reference: Engine) -> None:
    vllm.install(None)
    before = dict(vllm.steps)
    vllm.generate([f"{i}" for i in range(12)], max_new_tokens=4)
    steps, running, possible = (vllm.steps[key] - before[key] for key in ("steps", "running", "possible"))
    assert steps >= 4 and 4 * steps < running <= possible <= 12 * steps
    assert not reference.steps


def test_a_prompt_that_is_too_long_is_refused_in_one_line(vllm: VllmEngine) -> None:
    with pytest.raises(UserError, match="a prompt has 7[0-9] tokens, the model takes 64"):
        vllm.generate(["x" * 70], max_new_tokens=1)


@pytest.mark.parametrize("target", ["letters", pytest.param("people", marks=pytest.mark.slow)])
def test_particles_side_by_side_answer_as_each_alone(beside: VllmEngine, reference: Engine, target: str) -> None:
    utility = utility_of(target)
    requests = utility.requests("validation")[:60]
    for names in (["rev", "eats", None, "sort"], ["work", "rev", "swap", None], [None]):
        particles: dict[str | None, Any] = {name: weights(name) if name else None for name in names}
        beside.install_adapters(particles)
        together = responses(beside, requests * len(names), of=[name for name in names for _ in requests])
        for name, start in zip(names, range(0, len(together), len(requests)), strict=True):
            reference.install(particles[name])
            expected = [utility.outcome("validation", i, r).score for i, r in enumerate(responses(reference, requests))]
            replies = together[start : start + len(requests)]
            found = [utility.outcome("validation", i, r).score for i, r in enumerate(replies)]
            assert sum(a != b for a, b in zip(found, expected, strict=True)) <= DIFFERENCES, name


def test_a_particle_next_to_others_answers_the_same_when_its_place_is_taken_by_another_and_given_back(
    beside: VllmEngine,
) -> None:
    def ask(*names: str) -> list[Any]:
        beside.install_adapters({name: weights(name) for name in names})
        requests = [Generate(text, 8) for text in LONG]
        return responses(beside, requests * len(names), of=[name for name in names for _ in requests])

    first, other, again = ask("rev", "sort"), ask("sort", "rev"), ask("rev", "sort")
    assert first == again == other[len(LONG) :] + other[: len(LONG)]
    assert first[: len(LONG)] != first[len(LONG) :]


def test_modules_that_vllm_would_silently_ignore_are_refused_and_the_engine_continues(beside: VllmEngine) -> None:
    strange = {name.replace("q_proj", "w_proj"): tensor for name, tensor in weights("sort").items()}
    with pytest.raises(UserError, match="no adapter slot for .*w_proj"):
        beside.install_adapters({"a": weights("rev"), "b": strange})
    whole = weights("sort") | {"base_model.model.lm_head.weight": np.zeros((101, 160), np.float32)}
    with pytest.raises(AdaptersNotSupported, match="as adapters of one base .*lm_head.weight"):
        beside.install_adapters({"a": whole})
    beside.install(weights("rev"))
    assert beside.generate([Chat((("user", "rev abcd"),))], max_new_tokens=8) == ["dcba"]


def test_checkpoints_and_ranks_without_a_slot_are_refused_for_multi_lora() -> None:
    config = VllmConfig(adapter_mode="multi_lora")
    with pytest.raises(UserError, match="is for adapters, and the experts are checkpoints"):
        config.start(model=BASE, adapter=None)
    with pytest.raises(UserError, match="up to rank 512, not 1024"):
        config.start(model=BASE, adapter=dict(ADAPTER) | {"r": 1024})
