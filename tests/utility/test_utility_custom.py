from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evoswarm.utility import Outcome

Make = Callable[..., Any]
Refusal = Callable[..., str]

MODULE = """
import numpy

def length(example, response):
    return len(response) - len(example["prompt"])

def changes(example, response):
    example["words"].append("changed")
    return 1.0

def value(example, response):
    return {"true": True, "numpy": numpy.float32(0.5), "numpy bool": numpy.bool_(True), "array": numpy.array(2),
            "nan": float("nan"), "inf": -float("inf"), "text": "1.0", "none": None, "complex": 1j}[response]

not_a_function = 3
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder with data and a module of functions."""
    (tmp_path / "score_by_hand.py").write_text(MODULE)
    (tmp_path / "broken_by_hand.py").write_text("def f(:\n")
    (tmp_path / "leaving_by_hand.py").write_text("raise SystemExit(4)\n")
    (tmp_path / "failing_by_hand.py").write_text("raise RuntimeError('first line\\nsecond')\n")
    (tmp_path / "x.json").write_text('{"dev": [{"prompt": "abc", "words": ["a"]}, {"prompt": "de"}]}')
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("score_by_hand", None)


def settings(function: str) -> dict[str, Any]:
    data = {"path": "x.json", "test": None}
    return {"data": data, "prompt": {"template": "{prompt}"}, "function": f"score_by_hand:{function}"}


def test_the_utility_is_the_mean_of_the_function_values(make: Make, root: Path) -> None:
    utility = make("custom", root, **settings("length"))
    assert [request.prompt for request in utility.requests("validation")] == ["abc", "de"]
    outcomes = [utility.outcome("validation", i, "four") for i in range(2)]
    assert outcomes == [Outcome(1.0, None), Outcome(2.0, None)]
    assert utility.aggregate("validation", [1.0, 2.0]) == 1.5


def test_custom_utilities_do_not_vote(make: Make, root: Path) -> None:
    utility = make("custom", root, **settings("length"))
    assert not utility.votes
    with pytest.raises(ValueError, match="cannot be put to a vote"):
        utility.vote("validation", 0, ["a"])


def test_all_number_types_are_accepted(make: Make, root: Path) -> None:
    utility = make("custom", root, **settings("value"))
    values = [utility.outcome("validation", 0, kind).score for kind in ("true", "numpy", "numpy bool", "array")]
    assert values == [1.0, 0.5, 1.0, 2.0]
    assert {type(value) for value in values} == {float}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("nan", "returned nan, not a finite number"),
        ("inf", "returned -inf, not a finite number"),
        ("text", "returned str, not a number"),
        ("none", "returned NoneType, not a number"),
        ("complex", "returned complex, not a number"),
        ("unknown", "raised KeyError: 'unknown'"),
    ],
)
def test_anything_but_a_finite_number_fails_the_example(make: Make, root: Path, kind: str, error: str) -> None:
    outcome = make("custom", root, **settings("value")).outcome("validation", 0, kind)
    assert outcome == Outcome(None, None, f"score_by_hand:value {error}")


def test_the_function_cannot_change_the_example(make: Make, root: Path) -> None:
    utility = make("custom", root, **settings("changes"))
    assert utility.outcome("validation", 0, "x") == Outcome(1.0, None)
    assert utility.example("validation", 0)["words"] == ["a"]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("missing_by_hand:f", ["cannot import missing_by_hand", "No module named", "put the module into"]),
        ("leaving_by_hand:f", ["cannot import leaving_by_hand", "SystemExit: 4"]),
        ("broken_by_hand:f", ["cannot import broken_by_hand", "SyntaxError"]),
        ("failing_by_hand:f", ["RuntimeError: first line second"]),
        ("score_by_hand:nothing", ["score_by_hand.py has no function nothing"]),
        ("score_by_hand:not_a_function", ["has no function not_a_function"]),
    ],
)
def test_a_function_that_cannot_be_imported_is_rejected(
    refusal: Refusal, root: Path, function: str, words: list[str]
) -> None:
    message = refusal("custom", root, **settings("x") | {"function": function})
    assert [word for word in [f"utility.function {function}", *words] if word not in message] == []


def test_the_folder_never_hides_an_installed_module(make: Make, root: Path) -> None:
    (root / "operator.py").write_text("raise RuntimeError('wrong module')\n")
    utility = make("custom", root, **settings("x") | {"function": "operator:ne"})
    assert utility.outcome("validation", 0, "x") == Outcome(1.0, None)


def test_shots_need_answers(refusal: Refusal, root: Path) -> None:
    prompt = {"template": "{prompt}", "few_shot": 1}
    assert "field 'answer' is missing" in refusal("custom", root, **settings("length") | {"prompt": prompt})
