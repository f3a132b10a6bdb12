"""Utilities whose answers are scored by models: rewards, normalization, lengths, labels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_scorers import QUESTIONS, change, save_scorer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evoswarm.errors import UserError
from evoswarm.utility.classifier import Classifier
from evoswarm.utility.normalize import MODEL_SWARMS, Constants, measured
from evoswarm.utility.reward import Reward
from evoswarm.utility.scoring import Exchange, Scored, ScoringModel

Make = Callable[..., Any]
ANSWERS = [" fine\nsecond line", "no", "<think>hm</think>yes", "", "ab", "c"]
DATA = {"path": "questions.json"}


@contextmanager
def closing(utility: Any) -> Iterator[Any]:
    try:
        yield utility
    finally:
        utility.close()


def one(reward: float, tokens: int = 0) -> Scored:
    return Scored((reward,), tokens)


def raw_rewards(model: Path, answers: list[str], system: str | None = None) -> list[float]:
    texts = [Exchange(question, answer, system) for question, answer in zip(QUESTIONS, answers, strict=True)]
    return [scored.logits[0] for scored in ScoringModel(model=str(model)).start().score(texts)]


@pytest.fixture
def reward(make: Make, questions: Path, reward_model: Path) -> Callable[..., Any]:
    """reward(normalize=..., length=...) is a utility with one model."""

    def made(*, length: str | None = None, **settings: Any) -> Any:
        models = {"helpful": {"model": str(reward_model), **settings}}
        return make("reward", questions, data=DATA, models=models, length=length)

    return made


def test_the_score_is_the_reward_of_question_and_answer_without_reasoning(reward: Make, reward_model: Path) -> None:
    with closing(reward()) as utility:
        found = utility.outcomes("validation", range(6), ANSWERS)
    clean = ["fine\nsecond line", "no", "yes", "", "ab", "c"]
    assert [o.score for o in found] == pytest.approx(raw_rewards(reward_model, clean), abs=1e-5)
    assert [o.prediction for o in found] == clean
    assert found[0].statistics == (found[0].score, 17.0, 0.0)
    metrics = utility.metrics("validation", [o.score for o in found], [o.statistics for o in found])
    assert metrics == {
        "reward/helpful": pytest.approx(utility.aggregate("validation", [o.score for o in found])),
        "tokens": pytest.approx((17 + 3 + 4 + 1 + 3 + 2) / 6),
    }


def test_solved_examples_and_the_prefix_of_the_answer_are_not_shown_to_the_reward_model(
    make: Make, reward_model: Path, tmp_path: Path
) -> None:
    records = [{"id": i, "question": question, "answer": "x"} for i, question in enumerate([*QUESTIONS, "shot"])]
    (tmp_path / "data.json").write_text(json.dumps({"dev": records}))
    prompt = {"few_shot": 1, "answer_prefix": "\nAnswer:", "system": "Be kind.", "chat_template": True}
    data = {"path": "data.json", "test": None}
    utility = make("reward", tmp_path, data=data, prompt=prompt, models={"a": str(reward_model)})
    with closing(utility):
        found = utility.outcomes("validation", range(6), ["yes"] * 6)
    assert [o.score for o in found] == pytest.approx(raw_rewards(reward_model, ["yes"] * 6, "Be kind."), abs=1e-5)


def test_rewards_are_normalized_with_the_constants_of_model_swarms() -> None:
    assert MODEL_SWARMS.normalized(-3.060546875) == 0 and MODEL_SWARMS.normalized(-10) == 0
    assert MODEL_SWARMS.normalized(2.65625) == 1 and MODEL_SWARMS.normalized(4) == 1
    assert MODEL_SWARMS.normalized(0) == pytest.approx(3.060546875 / 5.716796875)


@pytest.mark.parametrize(
    ("settings", "scored", "expected"),
    [
        ({}, one(1.5), 1.5),
        ({"reverse": True}, one(1.5), -1.5),
        ({"normalize": "model_swarms"}, one(0.5), 3.560546875 / 5.716796875),
        ({"normalize": "model_swarms", "reverse": True}, one(0.5), -3.560546875 / 5.716796875),
        ({"normalize": {"low": 0, "high": 2}}, one(0.5), 0.25),
        ({"normalize": {"mean": 1, "deviation": 2}}, one(3), 1 / (1 + math.exp(-1))),
        ({"normalize": {"low": 0, "high": 2}, "length": "verbose"}, one(0.5, 10), 0.125),
        ({"normalize": {"low": 0, "high": 2}, "length": "verbose"}, one(0.5, 201), 0.625),
        ({"normalize": {"low": 0, "high": 2}, "length": "verbose"}, one(0.5, 500), 0.625),
        ({"normalize": {"low": 0, "high": 2}, "length": "concise"}, one(0.5, 3), 0.625),
        ({"normalize": {"low": 0, "high": 2}, "length": "concise"}, one(0.5, 105), (0.25 + 1 - 95 / 191) / 2),
    ],
)
def test_the_score_of_one_reward_by_hand(reward: Make, settings: Any, scored: Scored, expected: float) -> None:
    assert reward(**settings).combine({"models.helpful": scored}).score == pytest.approx(expected, abs=1e-12)


def test_several_models_have_weights_and_metrics(make: Make, questions: Path, reward_model: Path) -> None:
    models = {
        "helpful": {"model": str(reward_model), "weight": 3, "normalize": {"low": 0, "high": 1}},
        "harmful": {"model": str(reward_model), "reverse": True},
    }
    utility = make("reward", questions, data=DATA, models=models)
    outcome = utility.combine({"models.helpful": one(0.5, 4), "models.harmful": one(2, 9)})
    assert outcome.score == (3 * 0.5 - 2) / 4 and outcome.statistics == (0.5, 2.0, 4.0, 0.0)
    metrics = utility.metrics("test", [outcome.score], [outcome.statistics])
    assert metrics == {"reward/helpful": 0.5, "reward/harmful": 2.0, "tokens": 4.0}


def test_a_text_that_is_too_long_fails_its_example_alone(reward: Make) -> None:
    with closing(reward()) as utility:
        long, short = utility.outcomes("validation", [0, 1], ["x" * 300, "x"])
    assert long.score is None and "models.helpful: " in long.error and "the model takes 256" in long.error
    assert short.error is None


def test_the_share_of_cut_texts_is_a_metric(reward: Make) -> None:
    with closing(reward(too_long="cut", max_length=32)) as utility:
        found = utility.outcomes("validation", range(6), ["x"] * 6)
    metrics = utility.metrics("validation", [o.score for o in found], [o.statistics for o in found])
    assert metrics["cut"] == 1 / 6  # "Tell me all about it"


def test_measured_constants_are_mean_and_deviation_of_the_base_models_rewards(reward: Make) -> None:
    config: Reward = reward(normalize="measured").config
    assert config.to_measure is not None and config.to_measure.models["helpful"].normalize == "raw"
    constants = config.constants([(1.0, 7.0), (3.0, 7.0)])
    assert constants == {"helpful": {"mean": 2.0, "deviation": 1.0}}
    settled = config.with_constants(constants)
    assert settled.models["helpful"].normalize == Constants(mean=2.0, deviation=1.0) and settled.to_measure is None
    with pytest.raises(UserError, match=r"models\.helpful: .* gives the same score to every answer"):
        config.constants([(1.0, 7.0), (1.0, 9.0)])
    with closing(reward(normalize="measured")) as utility, pytest.raises(UserError, match="normalize: measured"):
        utility.outcomes("validation", [0], ["x"])


def test_normalization_by_deviation_is_between_0_and_1_for_any_reward() -> None:
    constants = Constants(**measured([0.0, 1e-3]))
    assert [constants.normalized(x) for x in (-1e300, 5e-4, 1e300)] == [0, pytest.approx(0.5), 1]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"models": {}}, "at least 1 item"),
        ({"models": {"a": {"model": "m", "normalize": "z"}}}, "'raw', 'model_swarms' or 'measured'"),
        ({"models": {"a": {"model": "m", "normalize": {"low": 1}}}}, "give low and high, or mean and deviation"),
        ({"models": {"a": {"model": "m", "normalize": {"low": 1, "high": 1}}}}, "must be less than high"),
        ({"models": {"a": {"model": "m", "normalize": {"mean": 1, "deviation": 0}}}}, "greater than 0"),
        ({"models": {"a": "m"}, "length": "concise"}, r"set models\.a\.normalize"),
        ({"models": {"a": {"model": "m", "weight": 0}}}, "greater than 0"),
        ({"models": "m"}, "must name each model"),
    ],
)
def test_a_config_that_cannot_work_is_refused(settings: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Reward(data=DATA, **settings)


def test_raw_and_reversed_rewards_have_no_harmonic_mean(make: Make, questions: Path) -> None:
    def negative(**settings: Any) -> bool:
        return bool(make("reward", questions, data=DATA, models={"a": {"model": "m", **settings}}).negative)

    assert negative() and negative(normalize="model_swarms", reverse=True) and not negative(normalize="measured")


def test_a_model_with_two_outputs_is_no_reward_model(make: Make, questions: Path, toxicity: Path) -> None:
    utility = make("reward", questions, data=DATA, models={"a": {"model": str(toxicity), "input": "pair"}})
    expected = r"models\.a: .* has 2 outputs \(neutral, toxic\).*use utility\.type: classifier"
    with pytest.raises(UserError, match=expected):
        utility.config.check(questions)
    with closing(utility), pytest.raises(UserError, match=expected):
        utility.open()


def test_paths_of_models_start_at_the_configs_folder(make: Make, questions: Path, reward_model: Path) -> None:
    utility = make(
        "reward", reward_model.parent, data={**DATA, "path": questions / "questions.json"}, models={"a": "llama"}
    )
    utility.config.check(reward_model.parent)
    with closing(utility):
        utility.open()


def probabilities(model: Path, answers: list[str]) -> list[list[float]]:
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForSequenceClassification.from_pretrained(model)
    with torch.inference_mode():
        logits = [network.eval()(**tokenizer(answer, return_tensors="pt")).logits[0] for answer in answers]
    return [torch.softmax(row, 0).tolist() for row in logits]


@pytest.fixture
def classifier(make: Make, questions: Path, toxicity: Path) -> Callable[..., Any]:
    return lambda **settings: make("classifier", questions, data=DATA, **{"classifier": str(toxicity)} | settings)


def test_the_score_is_the_probability_of_the_label(classifier: Make, toxicity: Path) -> None:
    expected = [row[1] for row in probabilities(toxicity, ["fine\nsecond line", "no", "yes", "", "ab", "c"])]
    for label in ("toxic", 1):
        with closing(classifier(label=label)) as utility:
            found = utility.outcomes("validation", range(6), ANSWERS)
        assert [o.score for o in found] == pytest.approx(expected, abs=1e-5)
    metrics = utility.metrics("validation", [o.score for o in found], [o.statistics for o in found])
    assert metrics == {
        "probability": pytest.approx(sum(expected) / 6),
        "share": sum(value > 0.5 for value in expected) / 6,
    }


def test_inverted_scores_of_the_first_line_avoid_the_label(classifier: Make, toxicity: Path) -> None:
    with closing(classifier(label="toxic", invert=True, part="first_line")) as utility:
        found = utility.outcomes("validation", [0, 1], ["\n fine \nsecond line", "no"])
    expected = [1 - row[1] for row in probabilities(toxicity, ["fine", "no"])]
    assert [o.score for o in found] == pytest.approx(expected, abs=1e-5)
    assert [o.prediction for o in found] == ["fine", "no"]


def test_labels_of_a_multi_label_model_have_probabilities_of_their_own(classifier: Make, tmp_path: Path) -> None:
    labels = ("toxic", "insult", "threat")
    model = save_scorer(tmp_path / "multi", kind="bert", labels=labels, problem_type="multi_label_classification")
    facts = ScoringModel(model=str(model), input="answer")
    (scored,) = facts.start().score([Exchange("", "no")])
    for settings, expected in [
        ({}, 1 / (1 + math.exp(-scored.logits[1]))),
        ({"probability": "softmax"}, math.exp(scored.logits[1]) / sum(map(math.exp, scored.logits))),
    ]:
        with closing(classifier(classifier=str(model), label="insult", **settings)) as utility:
            assert utility.outcome("validation", 0, "no").score == pytest.approx(expected, abs=1e-5)


def test_an_unknown_label_is_refused_with_the_nearest_and_all_labels(classifier: Make, questions: Path) -> None:
    for label, hint in [
        ("toxi", r"did you mean toxic\?.*neutral, toxic"),
        (2, "neutral, toxic"),
        ("x", "neutral, toxic"),
    ]:
        with pytest.raises(UserError, match=f"label.*has no such label; .*{hint}"):
            classifier(label=label).config.check(questions)


def test_one_output_is_no_probability_unless_the_user_says_so(
    classifier: Make, questions: Path, reward_model: Path
) -> None:
    model = {"classifier": {"model": str(reward_model), "input": "chat"}, "label": 0}
    with pytest.raises(UserError, match="no probability; use utility.type: reward, or probability: sigmoid"):
        classifier(**model).config.check(questions)
    with closing(classifier(**model, probability="sigmoid")) as utility:
        assert 0 < utility.outcome("validation", 0, "no").score < 1


def test_a_regression_is_refused(classifier: Make, questions: Path, tmp_path: Path) -> None:
    model = save_scorer(tmp_path / "regression", kind="bert", labels=("score",))
    change(model, "config.json", problem_type="regression")
    with pytest.raises(UserError, match="no probability"):
        classifier(classifier=str(model), label=0, probability="sigmoid").config.check(questions)


def test_a_classifier_reads_the_answer_alone_by_default() -> None:
    def read(value: Any) -> str:
        return Classifier(data=DATA, classifier=value, label=0).classifier.input

    assert [read("m"), read({"model": "m"}), read({"model": "m", "input": "pair"})] == ["answer", "answer", "pair"]
