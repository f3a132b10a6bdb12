"""Answers that are withheld, by the model's own judgment or by a token."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.config.secrets import secrets_in
from evoswarm.utility import Choose, OptionScore, Outcome, Turns
from evoswarm.utility.abstain import WITHHELD
from evoswarm.utility.types import Chat, Generate

Make = Callable[..., Any]
Write = Callable[[str, Any], Path]
TRUE = (OptionScore(-1.0, 1), OptionScore(-2.0, 1))
FALSE = (OptionScore(-2.0, 1), OptionScore(-1.0, 1))
EXAMPLES = [{"question": f"1 + {i}?", "answer": str(1 + i)} for i in range(5)]
TASK = {"type": "exact_match", "data": {"path": "d.json", "test": None}}


def abstain(make: Make, write: Write, task: dict[str, Any] | None = None, **settings: Any) -> Any:
    return make("abstain", write("d.json", {"dev": EXAMPLES}), task=TASK | (task or {}), **settings)


def test_the_utility_is_right_minus_wrong_and_the_metrics_are_counted_by_hand(make: Make, write: Write) -> None:
    utility = abstain(make, write)
    # right and given, wrong and given, right and withheld, wrong and withheld, unreadable
    responses = [Turns("1", TRUE), Turns("7", TRUE), Turns("3", FALSE), Turns("9", FALSE), ""]
    outcomes = utility.outcomes("validation", range(5), responses)
    scores = [outcome.score for outcome in outcomes]
    assert scores == [1.0, -1.0, 0.0, 0.0, -1.0] and utility.aggregate("validation", scores) == pytest.approx(-1 / 5)
    assert [outcome.prediction for outcome in outcomes] == ["1", "7", WITHHELD, WITHHELD, None]
    found = utility.metrics("validation", scores, [outcome.statistics for outcome in outcomes])
    expected = {"coverage": 3 / 5, "reliable_accuracy": 1 / 3, "abstain_accuracy": 2 / 5, "abstain_f1": 2 / (2 + 1 + 2)}
    assert found == pytest.approx(expected)


def test_the_model_is_asked_about_the_answer_that_was_read(make: Make, write: Write) -> None:
    utility = abstain(make, write, {"mode": "numeric", "prompt": {"template": "Q: {question}\nA:"}})
    second = utility.follow("validation", 1, "<think>hm 4</think>It is 2, I think.")
    text = (
        "Q: 1 + 1?\nA:\nProposed answer: 2\nIs the proposed answer true or false? Directly answer with true or false."
    )
    assert second == Choose(text, (" true", " false"))
    assert utility.follow("validation", 1, "no idea") is None


def test_a_chat_goes_on(make: Make, write: Write) -> None:
    utility = abstain(make, write, {"prompt": {"chat_template": True}}, question="Sure?")
    second = utility.follow("validation", 1, "2")
    assert isinstance(second.prompt, Chat) and second.options == ("true", "false")
    assert second.prompt.messages == (("user", "1 + 1?"), ("assistant", "2"), ("user", "Sure?"))


def test_an_answer_is_completed_although_its_beginning_is_wrong(make: Make, write: Write) -> None:
    utility = abstain(make, write)
    assert all(isinstance(r, Generate) and r.draft is None for r in utility.requests("validation"))
    assert not utility.ruled_out("validation", 0, "xyz")


def test_a_marker_withholds_at_its_cost(make: Make, write: Write) -> None:
    utility = abstain(make, write, by="marker", cost=0.25)
    outcomes = utility.outcomes("validation", [0, 1, 2], ["1", "I am not sure <RET>", "8"])
    assert [outcome.score for outcome in outcomes] == [1.0, -0.25, -1.0] and utility.follow(
        "validation", 0, "1"
    ) is None
    found = utility.metrics("validation", [0.0] * 3, [outcome.statistics for outcome in outcomes])
    assert found == {"coverage": pytest.approx(2 / 3), "reliable_accuracy": 0.5}


def test_a_marker_in_the_reasoning_withholds_nothing(make: Make, write: Write) -> None:
    utility = abstain(make, write, by="marker")
    (outcome,) = utility.outcomes("validation", [0], ["<think>Should I say <RET>? No.</think>1"])
    assert outcome == Outcome(1.0, "1", statistics=(1.0, 0.0))


def test_the_saved_config_can_be_read_again(make: Make, write: Write) -> None:
    utility = abstain(make, write, by="marker", marker="I do not know")
    assert not secrets_in(utility.config.model_dump(mode="json"))


def test_votes_are_of_those_that_answer(make: Make, write: Write) -> None:
    utility = abstain(make, write, cost=0.1)
    assert utility.votes
    assert utility.vote("validation", 1, [WITHHELD, "2", WITHHELD]).score == 1.0
    assert utility.vote("validation", 1, ["7", "2", "7"]).score == -1.0
    assert utility.vote("validation", 1, [WITHHELD, None]) == Outcome(-0.1, WITHHELD, statistics=(0.0, 1.0))
    assert utility.vote("validation", 1, [None, None]).score == -1.0  # unreadable, as for each expert alone


def test_options_that_are_likeliest_are_judged_too(make: Make, write: Write) -> None:
    example = {"question": "Sky?", "choices": {"A": "blue", "B": "red"}, "answer": "A"}
    root = write("c.json", {"dev": [example]})
    task = {
        "type": "multiple_choice",
        "data": {"path": "c.json", "test": None},
        "prompt": {"answer_prefix": "\nAnswer:"},
    }
    utility = make("abstain", root, task=task)
    second = utility.follow("validation", 0, TRUE)
    assert "\nAnswer:\nProposed answer: A\n" in second.prompt
    (outcome,) = utility.outcomes("validation", [0], [Turns(TRUE, TRUE)])
    assert outcome.score == 1.0 and outcome.logprobs == (-1.0, -2.0)
    with pytest.raises(ValueError, match="by: marker needs generated answers"):
        make("abstain", root, task=task, by="marker")


def test_it_is_one_of_several_tasks(make: Make, write: Write) -> None:
    root = write("d.json", {"dev": EXAMPLES[:2]})
    tasks = {"plain": TASK, "careful": {"type": "abstain", "task": TASK}}
    both = make("multi_task", root, tasks=tasks, combine="weighted_sum")
    assert both.follow("validation", 0, "1") is None and isinstance(both.follow("validation", 2, "1"), Choose)
    outcomes = both.outcomes("validation", [3, 0, 2, 1], [Turns("7", FALSE), "1", Turns("1", TRUE), "7"])
    assert [outcome.score for outcome in outcomes] == [0.0, 1.0, 1.0, 0.0]
    assert both.aggregate("validation", [1.0, 0.0, 1.0, 0.0]) == 0.5


def test_a_search_that_learns_from_outcomes_is_told_scores_alone(make: Make, write: Write) -> None:
    utility = abstain(make, write)
    assert utility.gold_after("validation", 0, "1") is None
    assert math.isnan(utility.gold_logprob("validation", 0, (-1.0,)))
