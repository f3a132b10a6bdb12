from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.utility import OptionScore, Outcome
from evoswarm.utility.choices import read_choices

Make = Callable[..., Any]
Refusal = Callable[..., str]
Write = Callable[[str, Any], Path]


def scores(*logprobs: float, tokens: int = 1) -> tuple[OptionScore, ...]:
    return tuple(OptionScore(logprob, tokens) for logprob in logprobs)


def test_the_most_likely_option_is_the_answer(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json")
    assert utility.outcome("validation", 0, scores(-3.0, -1.0, -2.0)) == Outcome(1.0, "B", logprobs=(-3.0, -1.0, -2.0))
    assert utility.outcome("validation", 0, scores(-1.0, -3.0, -2.0)) == Outcome(0.0, "A", logprobs=(-1.0, -3.0, -2.0))
    assert utility.outcome("test", 1, scores(-2.0, -1.0)) == Outcome(1.0, "B", logprobs=(-2.0, -1.0))


def test_ties_between_options_go_to_the_first(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json")
    assert utility.outcome("validation", 0, scores(-2.0, -1.0, -1.0)).prediction == "B"


def test_an_impossible_option_is_only_unlikely(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json")
    outcome = utility.outcome("validation", 0, scores(-math.inf, -9.0, -math.inf))
    assert (outcome.score, outcome.prediction) == (1.0, "B")


def test_option_scores_that_are_not_numbers_fail_the_example(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json")
    for bad in (math.nan, math.inf):
        outcome = utility.outcome("validation", 0, scores(-1.0, bad, -2.0))
        assert outcome.score is None
        assert "not numbers" in outcome.error


def test_normalization_divides_by_bytes_or_tokens(make: Make, write: Write) -> None:
    record = {"question": "q", "choices": ["é", "abcd"], "answer": 0}
    root = write("x.json", [record])
    responses = (OptionScore(-3.0, 3), OptionScore(-4.0, 2))
    # none: -3 > -4.  bytes: é is 2 bytes, -1.5 < -1.  tokens: -1 > -2.
    for normalize, letter in (("none", "A"), ("bytes", "B"), ("tokens", "A")):
        data = {"path": "x.json", "test": None}
        utility = make("multiple_choice", root, data=data, options="texts", normalize=normalize)
        assert utility.outcome("validation", 0, responses).prediction == letter


def test_texts_of_options_are_scored_with_one_space_before_them(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "choices": [" x y ", "z"], "answer": 0}])
    utility = make("multiple_choice", root, data={"path": "x.json", "test": None}, options="texts")
    assert utility.requests("validation")[0].options == (" x y", " z")


def test_generated_text_is_parsed(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json", method="generate", stop=["\n"])
    assert utility.requests("validation")[0].prompt.endswith("A. stone\nB. apple\nC. river")
    assert utility.outcome("validation", 0, " Answer: B") == Outcome(1.0, "B")
    assert utility.outcome("validation", 0, "apple") == Outcome(1.0, "B")
    assert utility.outcome("validation", 1, "Answer: B") == Outcome(0.0, "B")


def test_an_answer_that_cannot_be_read_is_wrong_and_has_not_failed(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json", method="generate")
    assert utility.outcome("validation", 0, "A good question") == Outcome(0.0, None)


def test_the_majority_letter_is_scored(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json")
    assert utility.votes
    assert utility.vote("validation", 0, ["A", "B", "B"]) == Outcome(1.0, "B")
    assert utility.vote("validation", 0, ["C", "B", None, "B", "C"]) == Outcome(0.0, "C")
    assert utility.vote("validation", 0, [None, None, "B"]) == Outcome(1.0, "B")
    assert utility.vote("validation", 0, [None, None]) == Outcome(0.0, None)


def test_the_utility_is_the_fraction_of_correct_answers(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json")
    assert utility.aggregate("validation", [1.0, 0.0, 1.0]) == 2 / 3
    with pytest.raises(ValueError, match="3 examples in validation, 2 scores"):
        utility.aggregate("validation", [1.0, 0.0])


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        ({"A": "x", "B": "y"}, "B", "B"),
        ({"A": "x", "B": "y"}, "b", "B"),
        ({"A": "x", "B": "y"}, " B ", "B"),
        ({"A": "x", "B": "y"}, "y", "B"),
        ({"A": "x", "B": "y", "C": None}, "B", "B"),
        ({"B": "x", "A": "y"}, "A", "A"),
        ({"A": "B", "B": "A"}, "B", "B"),
        (["x", "y"], "B", "B"),
        (["x", "y"], "y", "B"),
        (["b", "a"], "a", "B"),
        (["10", "20"], "20", "B"),
        ('["x", "y"]', "y", "B"),
        ('{"A": "x", "B": "y"}', "B", "B"),
        ({"text": ["x", "y"], "label": ["A", "B"]}, "B", "B"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, "2", "B"),
        ({"text": ["x", "y"], "label": ["1", "2"]}, 2, "B"),
        ({"1": "x", "2": "y"}, "2", "B"),
        ({"text": "x", "label": "y"}, "label", "B"),
    ],
)
def test_all_formats_of_choices_and_answers_are_supported(choices: Any, answer: Any, letter: str) -> None:
    assert read_choices(choices).letter_of(answer) == letter


@pytest.mark.parametrize(
    ("choices", "answer", "words"),
    [
        (["x", "y"], "C", ["answer 'C' is not among the choices A, B"]),
        (["x", "y"], 3, ["answer '3' is not among"]),
        (["x", "y"], -1, ["answer '-1' is not among"]),
        (["x", "y"], True, ["answer 'True' is not among"]),
        (["2", "1"], "1", ["answer 1 can be B ('1')", "A ('2') as counted from 1", "set utility.label_base"]),
        (["0", "2", "1"], "1", ["C ('1') as an option's text"]),
        (["x", "x"], "x", ["can mean the options A, B"]),
        (["x"], 0, ["2 to 26 choices are needed, got 1"]),
        (["x"] * 27, 0, ["2 to 26 choices are needed, got 27"]),
        (["x", ""], 0, ["a choice is empty"]),
        (["x", None], 0, ["a choice is empty"]),
        ("x, y", 0, ["write them as JSON"]),
        (7, 0, ["must be a mapping or a list, not int"]),
        ({"text": ["x", "y"], "label": ["1"]}, "1", ["2 texts and 1 labels"]),
        ({"text": ["x", "y"], "label": ["1", "1"]}, "1", ["repeated labels"]),
    ],
)
def test_inconsistent_choices_and_answers_name_the_record(
    make: Make, refusal: Refusal, write: Write, choices: Any, answer: Any, words: list[str]
) -> None:
    root = write("x.json", {"dev": [{"question": "q", "choices": choices, "answer": answer, "id": 17}]})
    data = {"path": "x.json", "test": None}
    message = refusal("multiple_choice", root, data=data)
    assert [word for word in ["x.json: dev[0] (id '17')", *words] if word not in message] == []


def test_columnar_files_keep_different_numbers_of_options(make: Make, tmp_path: Path) -> None:
    import datasets

    records = [
        {"question": "p", "choices": {"A": "x", "B": "y"}, "answer": "A"},
        {"question": "q", "choices": {"A": "x", "B": "y", "C": "z"}, "answer": "C"},
    ]
    datasets.Dataset.from_list(records).save_to_disk(str(tmp_path / "x"))
    utility = make("multiple_choice", tmp_path, data={"path": "x", "test": None})
    assert [len(request.options) for request in utility.requests("validation")] == [2, 3]
