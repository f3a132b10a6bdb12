"""Several models that answer as one, with transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import EOS, load, make_tokenizer, save_llama

from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.rules import combined
from evoswarm.engine.combined.transformers import CombinedEngine
from evoswarm.engine.combined.vocabulary import check_vocabularies
from evoswarm.engine.transformers import HfEngine
from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

CONFIG = TransformersEngine()
START = "Answer the question.\n"
PROMPTS = [START + text for text in ("2 + 2 = ?", "name a color that is not red", "x")]
OPTIONS = [("4", "5", "twelve"), ("blue", "a red one"), ("y", "zz", "xyx")]
TEXTS = ["a text", "another, longer text that is not a prompt"]
MIX, STEER = [0.6, -0.2, 0.5], [0.7, -0.4]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    return save_llama(folder, seed=7, hidden_size=96, num_hidden_layers=3)


def mix_of(tiny_llama: Path, tiny_gpt2: Path, adapters: Path) -> Combination:
    small = Member(str(tiny_llama))
    return Combination("mix", small, (Member(str(tiny_llama), adapters / "a"), Member(str(tiny_gpt2)), small))


def steering_of(large: Path, small: Path, adapters: Path, names: str = "ab") -> Combination:
    experts = tuple(Member(str(small), adapters / name) for name in names)
    return Combination("steering", Member(str(large)), experts, Member(str(small)))


@pytest.fixture(scope="module", params=["mix", "steering"])
def case(request: pytest.FixtureRequest, tiny_llama: Path, tiny_gpt2: Path, adapters: Path, large: Path):
    """An engine with coefficients, and the scores of a text's next tokens computed without keys and values."""
    if request.param == "mix":
        combination, mixing = mix_of(tiny_llama, tiny_gpt2, adapters), MIX
    else:
        combination, mixing = steering_of(large, tiny_llama, adapters), STEER
    engine = CombinedEngine(CONFIG, combination=combination)
    engine.install({"mixing": np.array(mixing, np.float32)})
    alone = [_alone(member) for member in combination.members]
    weights = torch.from_numpy(combination.weights(mixing))[None]

    @torch.inference_mode()
    def naive(ids: list[int]) -> torch.Tensor:
        logits = [one.model(torch.tensor([ids])).logits for one in alone]
        return combined(combination.rule, logits, weights)[0].log_softmax(-1)

    return engine, naive


def _alone(member: Member) -> HfEngine:
    """The engine of one member, as in a run of its own."""
    if member.adapter is None:
        return HfEngine(CONFIG, model=member.model, adapter=None)
    pool = open_pool(PoolConfig(experts=[member.adapter]), model=member.model, alone=True)
    engine = HfEngine(CONFIG, model=member.model, adapter=pool.adapter)
    engine.install(Materializer(pool).one(_row(pool.names[0])))
    return engine


def _row(name: str):
    from evoswarm.rows import Row

    return Row.one(name)


def _ids(text: str) -> list[int]:
    return make_tokenizer()(text).input_ids


def test_generation_is_that_of_the_whole_text_computed_anew_for_each_token(case) -> None:
    engine, naive = case
    answers = engine.generate(PROMPTS, max_new_tokens=8)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = _ids(prompt)
        for _ in range(8):
            ids.append(int(naive(ids)[-1].argmax()))
            if ids[-1] == EOS:
                break
        expected = make_tokenizer().decode(ids[len(_ids(prompt)) :], skip_special_tokens=True)
        assert answer == expected
    assert [found.reply for found in engine.verify(PROMPTS, answers, max_new_tokens=8)] == answers


def test_options_texts_and_drafts_have_the_scores_of_the_combined_distribution(case) -> None:
    engine, naive = case
    for prompt, line, found in zip(PROMPTS, OPTIONS, engine.loglikelihood(PROMPTS, OPTIONS), strict=True):
        for option, score in zip(line, found, strict=True):
            ids, start = _ids(prompt + option), len(_ids(prompt))
            expected = sum(float(row[token]) for row, token in zip(naive(ids)[start - 1 :], ids[start:], strict=False))
            assert score.logprob == pytest.approx(expected, rel=1e-4)
    for text, score in zip(TEXTS, engine.rolling(TEXTS), strict=True):
        ids = _ids(text)
        start = [ids[0]] if ids[0] != ids[1] else []
        scored = naive(start + ids)
        expected = sum(float(row[token]) for row, token in zip(scored, (start + ids)[1:], strict=False))
        assert score.logprob == pytest.approx(expected, rel=1e-4)


def test_one_model_with_all_the_weight_answers_as_itself(tiny_llama, tiny_gpt2, adapters) -> None:
    combination = mix_of(tiny_llama, tiny_gpt2, adapters)
    engine = CombinedEngine(CONFIG, combination=combination)
    for i, member in enumerate(combination.experts):
        engine.install({"mixing": np.eye(3, dtype=np.float32)[i]})
        same(engine, _alone(member))
    engine.install(None)
    same(engine, _alone(combination.reference))


def test_a_model_steered_by_an_expert_of_itself_answers_as_the_expert(tiny_llama, adapters) -> None:
    combination = steering_of(tiny_llama, tiny_llama, adapters)
    engine = CombinedEngine(CONFIG, combination=combination)
    engine.install({"mixing": np.array([0, 1], np.float32)})
    same(engine, _alone(combination.experts[1]))


def test_a_large_model_with_the_small_ones_weights_is_steered_to_the_expert(tiny_llama, adapters, tmp_path) -> None:
    """The large base and the small one are different folders, so that the differences are really added."""
    large = Path(shutil.copytree(tiny_llama, tmp_path / "large"))
    engine = CombinedEngine(CONFIG, combination=steering_of(large, tiny_llama, adapters))
    engine.install({"mixing": np.array([1, 0], np.float32)})
    expert = _alone(Member(str(tiny_llama), adapters / "a"))
    assert engine.generate(PROMPTS, max_new_tokens=12) == expert.generate(PROMPTS, max_new_tokens=12)


def test_without_steering_the_large_model_answers_as_itself(large, tiny_llama, adapters) -> None:
    engine = CombinedEngine(CONFIG, combination=steering_of(large, tiny_llama, adapters))
    for weights in (None, {"mixing": np.zeros(2, np.float32)}):
        engine.install(weights)
        same(engine, _alone(Member(str(large))))


def same(engine: CombinedEngine, alone: HfEngine) -> None:
    """Both engines give the same answers and, bit for bit, the same scores."""
    answers = alone.generate(PROMPTS, max_new_tokens=12)
    assert engine.generate(PROMPTS, max_new_tokens=12) == answers
    assert engine.loglikelihood(PROMPTS, OPTIONS) == alone.loglikelihood(PROMPTS, OPTIONS)
    assert engine.rolling(TEXTS) == alone.rolling(TEXTS)
    drafts = {"max_new_tokens": 12, "logprobs": True}
    assert engine.verify(PROMPTS, answers, **drafts) == alone.verify(PROMPTS, answers, **drafts)


def test_models_of_one_base_share_what_their_adapters_leave_alone(tiny_llama, adapters) -> None:
    engine = CombinedEngine(CONFIG, combination=steering_of(tiny_llama, tiny_llama, adapters))
    base, first = (dict(one.model.named_parameters()) for one in engine._network.networks[:2])
    shared = [name for name in first if first[name].data_ptr() == base[name].data_ptr()]
    assert any("embed" in name for name in shared) and not any("q_proj" in name for name in shared)


def test_the_base_is_whole_after_its_experts_were_made(tiny_llama, adapters) -> None:
    engine = CombinedEngine(CONFIG, combination=steering_of(tiny_llama, tiny_llama, adapters))
    before, now = load(tiny_llama).state_dict(), engine._network.networks[0].model.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())


def test_the_answer_ends_where_any_of_the_models_ends_it(tiny_llama, tmp_path) -> None:
    """Instruct models end their answers with another token than their base models."""
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    path = other / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 40}))
    combination = Combination("mix", Member(str(tiny_llama)), (Member(str(other)),))
    assert 40 in CombinedEngine(CONFIG, combination=combination)._encoder.ends


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda vocab: vocab | {"x": vocab["y"], "y": vocab["x"]}, 'token "x" is number {y}, not number {x}'),
        (lambda vocab: {t: n for t, n in vocab.items() if t != "~"}, 'token "~" is missing, not number {tilde}'),
    ],
)
def test_another_vocabulary_is_refused_by_the_first_token_that_differs(tiny_llama, tmp_path, change, problem) -> None:
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    path = other / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] = change(data["model"]["vocab"])
    path.write_text(json.dumps(data))
    members = [Member(str(tiny_llama)), Member(str(tiny_llama), tmp_path / "adapter"), Member(str(other))]
    with pytest.raises(UserError) as caught:
        check_vocabularies(members, trust_remote_code=False)
    assert str(caught.value).startswith(f"{other}: its vocabulary is not that of {tiny_llama}")
    vocab = make_tokenizer().get_vocab()
    assert problem.format(x=vocab["x"], y=vocab["y"], tilde=vocab["~"]) in str(caught.value)


def test_a_token_that_is_special_in_one_model_only_is_refused(tiny_llama, tmp_path) -> None:
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["~"]})
    tokenizer.save_pretrained(other)
    with pytest.raises(UserError, match='token "~" is special in one of them only'):
        check_vocabularies([Member(str(tiny_llama)), Member(str(other))], trust_remote_code=False)


def test_padding_and_the_end_of_an_answer_may_differ(tiny_llama, tmp_path) -> None:
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    make_tokenizer(pad_token="<unk>", eos_token="<end>").save_pretrained(other)
    check_vocabularies([Member(str(tiny_llama)), Member(str(other))], trust_remote_code=False)


def test_a_checkpoint_without_a_tokenizer_has_that_of_the_first_model(tiny_llama, tmp_path) -> None:
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    for path in other.glob("tokenizer*"):
        path.unlink()
    check_vocabularies([Member(str(tiny_llama)), Member(str(other))], trust_remote_code=False)
