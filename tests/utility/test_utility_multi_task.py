from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.errors import UserError
from evoswarm.utility import OptionScore, Outcome, make_utility
from evoswarm.utility.multi_task import harmonic_mean
from evoswarm.utility.requests import every_request

ALL_SPLITS = ("validation", "test", "select", "report")

Make = Callable[..., Any]
Refusal = Callable[..., str]

CHOICES = {"type": "multiple_choice", "data": "choices.json"}
NUMBERS = {"type": "exact_match", "data": "numbers.json", "mode": "numeric"}
STORIES = {"type": "custom", "data": "prompts.json", "function": "operator:ne", "prompt": {"template": "{prompt}"}}
TASKS = {"tasks": {"facts": CHOICES, "sums": NUMBERS}}
# facts: 2 of 3 right, sums: 1 of 4 right
SCORES = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def test_the_examples_of_the_tasks_are_concatenated(make: Make) -> None:
    utility = make("multi_task", **TASKS)
    assert (utility.size("validation"), utility.size("test")) == (7, 3)
    assert [type(request).__name__ for request in utility.requests("validation")] == ["Choose"] * 3 + ["Generate"] * 4
    assert utility.example("validation", 3)["id"] == "sums/0"
    assert utility.example("validation", 2)["task"] == "facts"


def test_each_answer_is_scored_by_its_task(make: Make) -> None:
    utility = make("multi_task", **TASKS)
    options = (OptionScore(-2, 1), OptionScore(-1, 1), OptionScore(-3, 1))
    sums, facts = utility.outcomes("validation", [6, 0], ["15.0", options])
    assert sums == Outcome(1.0, "15") and facts.prediction == "B"
    assert utility.vote("validation", 3, ["7", "1000", "1000"]) == Outcome(1.0, "1000")


def test_the_harmonic_mean_of_the_tasks_is_the_utility(make: Make) -> None:
    utility = make("multi_task", **TASKS)
    assert utility.task_utilities("validation", SCORES) == {"facts": 2 / 3, "sums": 0.25}
    assert utility.aggregate("validation", SCORES) == pytest.approx(2 / (3 / 2 + 4))


def test_the_weighted_sum_normalizes_the_weights(make: Make) -> None:
    equal = make("multi_task", **TASKS, combine="weighted_sum")
    assert equal.aggregate("validation", SCORES) == pytest.approx((2 / 3 + 1 / 4) / 2)
    weighted = make("multi_task", **TASKS, combine="weighted_sum", weights={"facts": 3, "sums": 1})
    assert weighted.aggregate("validation", SCORES) == pytest.approx(0.75 * 2 / 3 + 0.25 / 4)


def test_a_wrong_number_of_scores_is_rejected(make: Make) -> None:
    with pytest.raises(ValueError):
        make("multi_task", **TASKS).aggregate("validation", SCORES[:-1])


def test_one_zero_makes_the_harmonic_mean_zero() -> None:
    assert harmonic_mean({"a": 0.0, "b": 0.9}) == 0.0


def test_a_negative_utility_has_no_harmonic_mean() -> None:
    with pytest.raises(UserError, match="task b has -0.2; use weighted_sum"):
        harmonic_mean({"a": 0.0, "b": -0.2})


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_the_harmonic_mean_is_between_the_minimum_and_the_arithmetic_mean(values: list[float]) -> None:
    mean = harmonic_mean({str(i): value for i, value in enumerate(values)})
    assert min(values) * (1 - 1e-12) <= mean <= sum(values) / len(values) * (1 + 1e-12)


def test_multi_task_votes_if_all_tasks_do(make: Make) -> None:
    assert make("multi_task", **TASKS).votes
    assert not make("multi_task", tasks={"facts": CHOICES, "stories": STORIES}).votes


def test_warnings_and_hash_include_all_tasks(make: Make) -> None:
    repeated = {**NUMBERS, "data": {"path": "numbers.json", "test": "dev"}}
    utility = make("multi_task", tasks={"facts": CHOICES, "sums": repeated})
    (warning,) = utility.warnings
    assert warning.startswith("task sums: ")
    assert utility.sha256 != make("multi_task", **TASKS).sha256


def test_either_all_tasks_or_none_have_a_test_split(make: Make, refusal: Refusal) -> None:
    untested = {**NUMBERS, "data": {"path": "numbers.json", "test": None}}
    assert "no test split for sums" in refusal("multi_task", tasks={"facts": CHOICES, "sums": untested})
    facts = {**CHOICES, "data": {"path": "choices.json", "test": None}}
    assert make("multi_task", tasks={"facts": facts, "sums": untested}).size("test") == 0


LIKELY = {"type": "loglikelihood", "data": "numbers.json"}
ABSTAIN = {"type": "abstain", "task": NUMBERS, "by": "marker"}
ASKED = NUMBERS | {"penalty": {"flips": 0}}


@pytest.mark.parametrize("kind", [LIKELY, ABSTAIN, NUMBERS | {"penalty": {"flips": 0.1}}])
def test_tasks_that_can_be_negative_have_neither_a_harmonic_mean_nor_a_share_of_the_base(
    make: Make, refusal: Refusal, kind: dict[str, Any]
) -> None:
    tasks, name = {"a": kind, "b": ASKED}, kind["type"]
    combine = refusal("multi_task", tasks=tasks)
    assert combine.startswith("utility.combine: harmonic_mean needs utilities of 0 or more, and a (")
    assert combine.endswith(f"a ({name}) can be negative; set combine: weighted_sum")
    share = refusal("multi_task", tasks=tasks, combine="weighted_sum", normalize="base")
    assert share == f"utility.normalize: base needs utilities above 0, and a ({name}) can be negative"
    make("multi_task", tasks=tasks, normalize={"a": [-4, 1]})
    make("multi_task", tasks=tasks, combine="weighted_sum")
    make("multi_task", tasks={"a": ASKED, "b": ASKED}, normalize="base")


THREE = {"facts": CHOICES, "sums": NUMBERS, "stories": STORIES}


def test_tasks_that_are_not_evolved_have_their_own_split(make: Make) -> None:
    utility = make("multi_task", tasks=THREE | {"sums": NUMBERS}, evolve=["facts"], select_on="sums", report=True)
    assert [utility.size(split) for split in ("validation", "test", "select")] == [3, 2, 4]
    reported = {utility.example("report", i)["task"] for i in range(utility.size("report"))}
    assert reported == {"sums", "stories"} and utility.votes  # only the evolved tasks vote
    (outcome,) = utility.outcomes("select", [3], ["15.0"])
    assert outcome == Outcome(1.0, "15") and utility.aggregate("select", [1.0, 0.0, 0.0, 0.0]) == 0.25
    assert utility.aggregate("validation", [1.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert len(list(every_request(utility))) == sum(utility.size(split) for split in ALL_SPLITS)


def test_a_task_that_chooses_is_not_evolved_unless_named_and_reported_only_on_test(make: Make) -> None:
    untested = {**NUMBERS, "data": {"path": "numbers.json", "test": None}}
    utility = make("multi_task", tasks={"facts": CHOICES, "sums": untested}, select_on="sums")
    assert [utility.size(split) for split in ALL_SPLITS] == [3, 2, 4, 0]
    both = make("multi_task", **TASKS, select_on="sums", evolve=["facts", "sums"])
    assert [both.size(split) for split in ALL_SPLITS] == [7, 3, 4, 0]


def test_a_reported_task_without_a_test_split_is_reported_on_validation_with_a_warning(make: Make) -> None:
    untested = {**NUMBERS, "data": {"path": "numbers.json", "test": None}}
    utility = make("multi_task", tasks={"facts": CHOICES, "sums": untested}, evolve=["facts"])
    assert utility.size("report") == 4
    assert utility.warnings == ["task sums has no test split and is reported on validation"]


def test_without_test_nothing_is_reported(make: Make) -> None:
    config = make("multi_task", tasks=THREE, evolve=["facts"], select_on="sums").config.without_test()
    utility = make_utility(config, root=Path(__file__).parent / "data")
    assert [utility.size(split) for split in ALL_SPLITS] == [3, 0, 4, 0]


def test_one_evolved_task_may_be_negative_and_needs_no_mean(make: Make) -> None:
    utility = make("multi_task", tasks={"likely": LIKELY, "sums": NUMBERS}, select_on="sums")
    assert utility.aggregate("validation", [-1.0] * 4) == -1.0


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"evolve": ["fact"]}, "evolve: unknown task 'fact'; did you mean facts?"),
        ({"select_on": "nothing"}, "select_on: unknown task 'nothing'"),
        ({"evolve": ["facts", "facts"]}, "evolve names facts twice"),
        ({"evolve": []}, "evolve names no task"),
        ({"select_on": "sums", "candidates": 1}, "greater than or equal to 2"),
        (
            {"evolve": ["facts"], "combine": "weighted_sum", "weights": {"facts": 1, "sums": 1}},
            "weights must name each evolved task once: facts",
        ),
    ],
)
def test_roles_that_cannot_work_are_refused(make: Make, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        make("multi_task", **TASKS, **settings)
