"""Accuracy and log-likelihood of the right answer as one utility."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.utility import Choose, OptionScore, Turns
from evoswarm.utility.types import Generate

Make = Callable[..., Any]
Write = Callable[[str, Any], Path]
CHOICES = {"type": "multiple_choice", "data": "choices.json"}
OPTIONS = (OptionScore(-2.0, 1), OptionScore(-1.0, 2), OptionScore(-3.0, 1))


@pytest.mark.parametrize(
    ("per", "likelihood"),
    [("answer", -1.0), ("token", -0.5), ("byte", -1.0), ("options", -1 - math.log(sum(map(math.exp, (-1, -2, -3)))))],
)
def test_options_are_asked_once_for_both(make: Make, per: str, likelihood: float) -> None:
    utility = make("blend", task=CHOICES, per=per, weights={"accuracy": 3, "loglikelihood": 1})
    assert isinstance(utility.requests("validation")[0], Choose) and utility.follow("validation", 0, OPTIONS) is None
    (outcome,) = utility.outcomes("validation", [0], [OPTIONS])
    assert outcome.score == pytest.approx(0.75 + 0.25 * likelihood)
    assert outcome.statistics == (1.0, pytest.approx(likelihood)) and outcome.prediction == "B"
    assert outcome.logprobs == (-2.0, -1.0, -3.0)


def test_the_metrics_have_both(make: Make) -> None:
    utility = make("blend", task=CHOICES)
    outcomes = utility.outcomes("validation", [0, 1], [OPTIONS, OPTIONS])
    found = utility.metrics("validation", [o.score for o in outcomes], [o.statistics for o in outcomes])
    assert found == {"accuracy": 0.5, "loglikelihood": pytest.approx((-0.5 - 3.0) / 2)}


def test_texts_of_options_are_divided_by_their_own_length(make: Make) -> None:
    utility = make("blend", task=CHOICES | {"options": "texts"}, per="byte")
    (outcome,) = utility.outcomes("validation", [0], [OPTIONS])
    assert outcome.statistics == (1.0, pytest.approx(-1 / len("apple")))


def test_a_generated_answer_is_followed_by_its_references(make: Make, write: Write) -> None:
    root = write("d.json", {"dev": [{"question": "2 + 3?", "answer": ["5", "five"]}]})
    utility = make("blend", root, task={"type": "exact_match", "data": {"path": "d.json", "test": None}})
    (request,) = utility.requests("validation")
    assert isinstance(request, Generate) and request.draft is None and not utility.ruled_out("validation", 0, "7")
    assert utility.follow("validation", 0, "7") == Choose("2 + 3?", (" 5", " five"))
    response = Turns("7", (OptionScore(-4.0, 1), OptionScore(-3.0, 2)))
    (outcome,) = utility.outcomes("validation", [0], [response])
    assert outcome.statistics == (0.0, -1.5) and outcome.score == pytest.approx(-0.75)
    assert not utility.votes and math.isnan(utility.gold_logprob("validation", 0, [-1.0]))


def test_a_likelihood_that_is_no_number_is_a_failed_example(make: Make) -> None:
    options = (OptionScore(-1.0, 1), OptionScore(-math.inf, 1), OptionScore(-2.0, 1))
    (outcome,) = make("blend", task=CHOICES).outcomes("validation", [0], [options])
    assert outcome.score is None and "not a finite number" in outcome.error


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"weights": {"accuracy": 1}}, "give a weight to accuracy and one to loglikelihood"),
        ({"weights": {"accuracy": 0, "loglikelihood": 0}}, "both weights are zero"),
        ({"per": "options", "task": CHOICES | {"method": "generate"}}, "needs a task of type multiple_choice with"),
        ({"task": {"type": "bleu", "data": "choices.json"}}, "unknown type 'bleu'"),
    ],
)
def test_a_blend_that_cannot_work_is_refused(make: Make, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make("blend", **{"task": CHOICES} | settings)


def test_a_blend_has_no_harmonic_mean(make: Make) -> None:
    with pytest.raises(ValueError, match=r"a \(blend\) can be negative"):
        make("multi_task", tasks={"a": {"type": "blend", "task": CHOICES}, "b": CHOICES})
