"""Where the answer is in a generated text, and the request that puts the right answer there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.utility import Chat, Choose, Generate
from evoswarm.utility.locate import letter_place, match_place, number_place, what_follows
from evoswarm.utility.numbers import read_number
from evoswarm.utility.parsing import parse_choice

Make = Callable[..., Any]
Write = Callable[[str, Any], Path]
CHOICES = {"A": "red", "B": "blue", "C": "green"}


@pytest.mark.parametrize(
    ("text", "before", "follows"),
    [
        ("3 + 4 = 7, so the answer is 7.", "3 + 4 = 7, so the answer is ", "."),
        ("So 3 + 4 = 7.\n#### 7", "So 3 + 4 = 7.\n#### ", ""),
        (r"We get 7 and thus \boxed{7}. I had 7 apples.", r"We get 7 and thus \boxed{", "}."),
        ("The answer is $1,234.50 per day", "The answer is $", " per"),
        ("The answer is **12**, since 6 * 2 = 12", "The answer is **", "**,"),
        ("We have 5, then 12 apples\n", "We have 5, then ", " apples"),
        ("12", "", ""),
        ("12\n", "", "\n"),
        ("#### Step 2\nadd 1.\n#### 17", "#### Step 2\nadd 1.\n#### ", ""),
        ("Half is 1/2", "Half is ", ""),
        ("the answer is -4", "the answer is ", ""),
    ],
)
def test_a_number_is_found_where_the_parser_found_it(text: str, before: str, follows: str):
    value = read_number(text)
    assert value is not None
    place = number_place(text, value)
    assert place is not None and text[: place.start] == before
    assert read_number(text[place.start : place.end]) == value
    assert what_follows(text, place) == follows


@pytest.mark.parametrize("text", [r"\boxed{\frac{1}{2}}", "The answer is twelve.", "one half"])
def test_a_number_that_is_not_written_in_digits_is_not_located(text: str):
    value = read_number(text)
    assert number_place(text, value or "12") is None


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("C", ""),
        ("(C).", "("),
        ("C\nbecause A is wrong", ""),
        ("A would be wrong, so the answer is C.", "A would be wrong, so the answer is "),
        ("C) green, not A", ""),
        ("I would choose C here", "I would choose "),
        (r"So \boxed{C}", r"So \boxed{"),
    ],
)
def test_a_letter_is_found_where_the_parser_found_it(text: str, before: str):
    assert parse_choice(text, CHOICES) == "C"
    place = letter_place(text, "C")
    assert place is not None and text[: place.start] == before


def test_the_last_match_of_a_pattern_that_is_not_empty_is_the_place():
    text = "x = 1; x = 22;"
    for pattern in (r"x = (\w+)", r"(?<=x = )\w+"):
        place = match_place(re.compile(pattern), text)
        assert place is not None and text[place.start : place.end] == "22"
    assert match_place(re.compile(r"y(\w+)"), text) is None
    assert match_place(re.compile(r"x = 2(z)?"), text) is None


def numeric(make: Make, write: Write, answer: str = "1500", **settings: Any) -> Any:
    root = write("x.json", [{"question": "How many", "answer": answer}])
    return make("exact_match", root, data={"path": "x.json", "test": None}, mode="numeric", **settings)


def test_the_right_number_stands_in_the_place_of_the_models_own(make: Make, write: Write):
    utility = numeric(make, write)
    assert utility.gold_after("validation", 0, "2 * 6 = 12, so the answer is 12 apples.") == Choose(
        "How many 2 * 6 = 12, so the answer is", (" 1500 apples",)
    )
    assert utility.gold_after("validation", 0, "It is $1,200.") == Choose("How many It is $", ("1,500.",))
    assert utility.gold_after("validation", 0, "12") == Generate("How many", 32, draft=" 1500")
    assert utility.gold_after("validation", 0, "That is\n12") == Generate("How many That is", 32, draft="\n1500")


def test_a_right_answer_stays_as_the_model_wrote_it(make: Make, write: Write):
    assert numeric(make, write).gold_after("validation", 0, "It is 1500.00!") == Choose(
        "How many It is", (" 1500.00!",)
    )


@pytest.mark.parametrize("text", ["", "I do not know", "between 3 and 5", "<think>it is 12"])
def test_without_an_answer_there_is_no_place(make: Make, write: Write, text: str):
    assert numeric(make, write).gold_after("validation", 0, text) is None


def test_the_place_is_behind_the_reasoning_which_stays_in_the_prompt(make: Make, write: Write):
    request = numeric(make, write).gold_after("validation", 0, "<think>12? 13?</think>\n\nThe answer is 12.")
    assert request == Choose("How many <think>12? 13?</think>\n\nThe answer is", (" 1500.",))


def test_in_a_chat_the_answer_has_begun(make: Make, write: Write):
    utility = numeric(make, write, prompt={"chat_template": True})
    request = utility.gold_after("validation", 0, "The answer is 12.")
    assert isinstance(request, Choose) and isinstance(request.prompt, Chat)
    assert (request.prompt.begun, request.options) == ("The answer is", (" 1500.",))


def test_an_extracted_answer_is_replaced_by_the_one_of_the_solution(make: Make, write: Write):
    root = write("x.json", [{"question": "q", "answer": "It is so. Answer: Rome"}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None}, extract=r"Answer: (\w+)")
    assert utility.gold_after("validation", 0, "Hm. Answer: Paris.") == Choose("q Hm. Answer:", (" Rome.",))
    assert utility.gold_after("validation", 0, "Paris") is None
    inside = numeric(make, write, extract="Answer: (.*)")
    assert inside.gold_after("validation", 0, "12 so Answer: 12 km") == Choose("How many 12 so Answer:", (" 1500 km",))


def test_a_whole_text_answer_needs_no_place(make: Make, write: Write):
    root = write("x.json", [{"question": "q", "answer": "Rome"}])
    assert make("exact_match", root, data={"path": "x.json", "test": None}).gold_after("validation", 0, "Paris") is None


def test_a_generated_letter_is_replaced(make: Make, write: Write):
    root = write("x.json", [{"question": "q", "choices": CHOICES, "answer": "B"}])
    data = {"path": "x.json", "test": None}
    utility = make("multiple_choice", root, data=data, method="generate")
    request = utility.gold_after("validation", 0, "So the answer is C.")
    assert isinstance(request, Choose) and request.options == (" B.",)
    assert isinstance(request.prompt, str) and request.prompt.endswith("So the answer is")
    assert utility.gold_logprob("validation", 0, (-0.5,)) == -0.5
    task = {"type": "multiple_choice", "data": data, "method": "generate"}
    several = make("multi_task", root, tasks={"other": task, "this": task})
    assert several.gold_after("validation", 1, "So the answer is C.") == request
