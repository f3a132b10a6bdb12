"""Answers, options and labels as public data sets have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evoswarm.utility.choices import read_choices
from evoswarm.utility.config import Data
from evoswarm.utility.references import read_references

Make = Callable[..., Any]
Refusal = Callable[..., str]
Write = Callable[[str, Any], Path]

TRIVIA = {
    "aliases": ["Sunset Blvd", "West Sunset Boulevard"],
    "matched_wiki_entity_name": "",
    "normalized_aliases": ["sunset blvd", "west sunset boulevard"],
    "normalized_value": "sunset boulevard",
    "type": "WikipediaEntity",
    "value": "Sunset Boulevard",
}
SQUAD = {"text": ["Denver Broncos", "The Broncos"], "answer_start": [177, 170]}


@pytest.mark.parametrize(
    ("answer", "first", "others"),
    [
        (TRIVIA, "Sunset Boulevard", ["Sunset Blvd", "sunset boulevard"]),
        (SQUAD, "Denver Broncos", ["The Broncos"]),
        ([{"text": "a"}, {"text": "b"}], "a", ["b"]),
        (["a", ["b"]], "a", ["b"]),
        ({"spans": ["5", "5 yards", "5"], "types": ["number", "span", "number"]}, "5", ["5 yards"]),
        ({"spans": ["a", "a"], "types": ["span", "span"]}, "a", []),
        ({"spans": ["a"]}, "a", []),
        ({"number": "5", "date": {"day": "", "month": "", "year": ""}, "spans": []}, "5", []),
        ({"number": "", "date": {"day": "1", "month": "May", "year": "2010"}, "spans": []}, "1 May 2010", []),
        ({"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": ["a"]}, "a", []),
        ({"number": None, "date": None, "spans": ["a"]}, "a", []),
        (True, "True", ["true", "yes", "Yes"]),
        (False, "False", ["false", "no", "No"]),
        (Decimal("5.00"), "5", []),
        (Decimal("5.50"), "5.50", []),
        (date(2020, 1, 2), "2020-01-02", []),
        ({"answer": "a", "answer_start": 177}, "a", []),
        ({"answers": ["a", "b"], "id": "177"}, "a", ["b"]),
        ({"short_answers": [{"text": ["a"], "start_token": [177]}], "yes_no_answer": [-1]}, "a", []),
        ({"normalized_aliases": ["a", "b"], "type": "177"}, "a", ["b"]),
        ({"value": "a", "text": None, "aliases": [float("nan"), "b"]}, "a", ["b"]),
        (" a ", "a", []),
        (float("inf"), "inf", []),
        (59.0, "59", []),
        ("59.0", "59", ["59.0"]),
        (0.5, "0.5", []),
        (59, "59", []),
        ('{"city": "Rome"}', '{"city": "Rome"}', []),
        ("[1, 2]", "[1, 2]", []),
        ("['a', 'b']", "['a', 'b']", []),
    ],
)
def test_the_answers_of_an_object_are_references(answer: Any, first: str, others: list[str]) -> None:
    found = read_references(answer)
    assert found[0] == first
    assert [other for other in others if other not in found] == []
    assert "177" not in found


@pytest.mark.parametrize("answer", [b"xy", datetime(2020, 1, 2), {1, 2}])
def test_values_that_are_neither_text_nor_numbers_are_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match=f"is of type {type(answer).__name__}; save it as text or a number"):
        read_references(answer)


@pytest.mark.parametrize(
    "answer",
    [
        {"spans": ["a", "b"], "types": ["span", "span"]},
        {"spans": ["a", "b"]},
        {"number": "", "date": {}, "spans": ["a", "b"]},
    ],
)
def test_several_spans_are_refused_because_all_of_them_may_be_needed(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"spans 'a', 'b', of which any or all can be needed.*answers_spans.spans"):
        read_references(answer)


def exact(make: Make, write: Write, answer: Any, **settings: Any) -> Any:
    root = write("x.json", [{"question": "q", "answer": answer}])
    return make("exact_match", root, data={"path": "x.json", "test": None}, **settings)


def test_any_alias_is_right_and_the_print_of_the_object_is_not(make: Make, write: Write) -> None:
    utility = exact(make, write, TRIVIA)
    assert utility.outcome("validation", 0, "Sunset Blvd").score == 1.0
    assert utility.outcome("validation", 0, str(TRIVIA)).score == 0.0
    assert utility.requests("validation")[0].draft == " Sunset Boulevard"


def test_a_position_in_the_text_is_not_a_number(make: Make, write: Write) -> None:
    utility = exact(make, write, {"text": ["16 games"], "answer_start": [177]}, mode="numeric")
    assert utility.outcome("validation", 0, "16").score == 1.0
    assert utility.outcome("validation", 0, "177").score == 0.0


def test_aliases_without_a_number_do_not_count(make: Make, write: Write) -> None:
    utility = exact(make, write, {"value": "16", "aliases": ["Sixteen (number)", "16"]}, mode="numeric")
    assert utility.outcome("validation", 0, "16").score == 1.0


@pytest.mark.parametrize("answer", [json.dumps(SQUAD), str(SQUAD), json.dumps(TRIVIA)])
def test_an_object_of_a_known_data_set_that_is_text_holds_answers(make: Make, write: Write, answer: str) -> None:
    utility = exact(make, write, answer)
    right = json.loads(json.dumps(TRIVIA if "value" in answer else SQUAD))
    for text in [*right.get("text", []), *right.get("aliases", [])]:
        assert utility.outcome("validation", 0, text).score == 1.0
    assert utility.outcome("validation", 0, answer).score == 0.0


LISTS = ["['a', 'b']", '["a", "b"]', "['a']", "{'text': 'a'}", "{'value': ['a', 'b'], 'other': 1}"]


@pytest.mark.parametrize("answer", LISTS)
def test_an_answer_that_can_be_text_or_a_list_is_refused_until_its_meaning_is_set(
    make: Make, refusal: Refusal, write: Write, answer: str
) -> None:
    root = write("x.json", [{"question": "q", "answer": answer, "id": 4}])
    message = refusal("exact_match", root, data={"path": "x.json", "test": None})
    words = ["x.json: validation[0] (id '4')", "set utility.text_answers: whole for the text, or parsed for 'a'"]
    assert [word for word in words if word not in message] == []
    whole = exact(make, write, answer, text_answers="whole")
    assert [whole.outcome("validation", 0, text).score for text in (answer, "a")] == [1.0, 0.0]
    assert whole.requests("validation")[0].draft == f" {answer}"
    items = exact(make, write, answer, text_answers="parsed")
    assert [items.outcome("validation", 0, text).score for text in (answer, "a")] == [0.0, 1.0]
    assert items.requests("validation")[0].draft == " a"


@pytest.mark.parametrize("answer", ["[1, 2]", "['a', 2]", "[]", '{"city": "Rome"}', "[a, b]", "['a'", "[]['a']"])
def test_other_text_in_brackets_is_the_answer(make: Make, write: Write, answer: str) -> None:
    for settings in ({}, {"text_answers": "whole"}, {"text_answers": "parsed"}):
        utility = exact(make, write, answer, **settings)
        assert [utility.outcome("validation", 0, text).score for text in (answer, "a", "1")] == [1.0, 0.0, 0.0]


def test_the_print_of_an_array_can_be_the_answer_if_the_config_says_so(make: Make, write: Write) -> None:
    utility = exact(make, write, "['a' 'b']", text_answers="whole")
    assert [utility.outcome("validation", 0, text).score for text in ("['a' 'b']", "a")] == [1.0, 0.0]


def test_numbers_of_a_list_that_is_text_are_references(make: Make, write: Write) -> None:
    utility = exact(make, write, '["16", "sixteen"]', mode="numeric", text_answers="parsed")
    assert [utility.outcome("validation", 0, answer).score for answer in ("16", "17")] == [1.0, 0.0]


def test_floats_of_pandas_are_whole_numbers(make: Make, write: Write) -> None:
    for answer in (59.0, "59.0"):
        assert exact(make, write, answer).outcome("validation", 0, "59").score == 1.0
    assert exact(make, write, 59.5).outcome("validation", 0, "59").score == 0.0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"start": 3, "end": 5}, ["object with the keys start, end", "columns: {answer: answer.KEY}"]),
        ({"text": [], "answer_start": []}, ["is empty; remove records without an answer"]),
        ([], ["is empty"]),
        (float("nan"), ["field 'answer' is null"]),
        ("{'text': ['x' 'y']}", ["the print of an array"]),
        ("['x' 'y'\n 'z']", ["the print of an array"]),
        ("{'text': array(['x'], dtype=object)}", ["the print of an array; save the data as JSONL or Parquet"]),
    ],
)
def test_what_is_not_an_answer_is_refused(refusal: Refusal, write: Write, answer: Any, words: list[str]) -> None:
    root = write("x.json", {"dev": [{"question": "q", "answer": answer, "id": 4}]})
    message = refusal("exact_match", root, data={"path": "x.json", "test": None})
    assert [word for word in ["x.json: dev[0] (id '4')", *words] if word not in message] == []


def test_columns_can_be_paths(make: Make, write: Write) -> None:
    targets = {"choices": ["x", "y", "z"], "labels": [0, 1, 0]}
    root = write("x.json", [{"question": "q", "mc1_targets": targets, "answers": SQUAD, "turns": [{"content": "hi"}]}])
    columns = {"choices": "mc1_targets.choices", "answer": "mc1_targets.labels"}
    utility = make("multiple_choice", root, data={"path": "x.json", "test": None, "columns": columns})
    assert utility.example("validation", 0)["answer"] == "B"
    columns = {"answer": "answers.text", "question": "turns.0.content"}
    utility = make("exact_match", root, data={"path": "x.json", "test": None, "columns": columns})
    assert utility.outcome("validation", 0, "The Broncos").score == 1.0
    assert utility.requests("validation")[0].prompt == "hi"


def test_a_column_whose_name_has_a_dot_comes_before_a_path(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "a.b": "5", "a": {"b": "6"}}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None, "columns": {"answer": "a.b"}})
    assert utility.outcome("validation", 0, "5").score == 1.0


def test_a_path_that_is_missing_names_the_keys_there(refusal: Refusal, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answers": SQUAD}])
    data = {"path": "x.json", "test": None, "columns": {"answer": "answers.value"}}
    message = refusal("exact_match", root, data=data)
    assert "'value' is missing; there is text, answer_start" in message


@pytest.mark.parametrize("answer", ["opb", "y", "B", "b"])
def test_several_columns_are_options(make: Make, write: Write, answer: str) -> None:
    record = {"question": "q", "opa": "x", "opb": "y", "opc": None, "right": answer}
    root = write("x.json", [record])
    columns = {"choices": ["opa", "opb", "opc"], "answer": "right"}
    utility = make("multiple_choice", root, data={"path": "x.json", "test": None, "columns": columns})
    assert utility.example("validation", 0)["choices"] == {"A": "x", "B": "y"}
    assert utility.example("validation", 0)["answer"] == "B"


def test_only_options_and_answers_have_several_columns() -> None:
    with pytest.raises(ValidationError, match="only choices and answer can have several"):
        Data(path="x.json", columns={"question": ["a", "b"]})


def letters(make: Make, write: Write, records: list[tuple[Any, Any]], **settings: Any) -> list[str]:
    root = write("x.json", [{"question": str(i), "choices": c, "answer": a} for i, (c, a) in enumerate(records)])
    utility = make("multiple_choice", root, data={"path": "x.json", "test": None}, **settings)
    return [utility.example("validation", i)["answer"] for i in range(len(records))]


XYZ = ["x", "y", "z"]


def test_positions_are_counted_from_0_if_an_answer_is_0(make: Make, write: Write) -> None:
    assert letters(make, write, [(XYZ, 0), (XYZ, 1), (XYZ, "2"), (XYZ, 1.0)]) == ["A", "B", "C", "B"]


def test_positions_are_counted_from_1_if_an_answer_is_the_number_of_options(make: Make, write: Write) -> None:
    assert letters(make, write, [(XYZ, 1), (XYZ, 3.0), (["x", "y"], "1")]) == ["A", "C", "A"]
    options = {"option1": "x", "option2": "y"}
    assert letters(make, write, [(options, "1"), (options, "2")]) == ["A", "B"]


def test_labels_of_the_file_come_before_positions(make: Make, write: Write) -> None:
    labeled = {"text": XYZ, "label": ["1", "2", "3"]}
    assert letters(make, write, [(labeled, "1"), (labeled, 2), (labeled, "2.0")]) == ["A", "B", "B"]
    assert letters(make, write, [(labeled, 0), (labeled, 1), (labeled, 2)]) == ["A", "B", "C"]
    assert letters(make, write, [(labeled, "1"), ({"A": "x", "B": "y"}, "B")]) == ["A", "B"]


def test_numbers_among_options_are_read_as_what_fits_all_records(make: Make, write: Write) -> None:
    assert letters(make, write, [([10.0, 20.0], 20), ([1, 2], 1)]) == ["B", "A"]
    assert letters(make, write, [(["57", "58", "59"], 59.0)]) == ["C"]
    assert letters(make, write, [([0, 2, 1], 1), (XYZ, 0)]) == ["B", "A"]


@pytest.mark.parametrize(("base", "letter"), [(0, "B"), (1, "A"), ("text", "C")])
def test_a_number_that_can_mean_several_options_is_refused_until_its_meaning_is_set(
    make: Make, refusal: Refusal, write: Write, base: Any, letter: str
) -> None:
    root = write("x.json", [{"question": "q", "choices": [0, 2, 1], "answer": 1}])
    message = refusal("multiple_choice", root, data={"path": "x.json", "test": None})
    readings = ["B ('2') as counted from 0", "A ('0') as counted from 1", "C ('1') as an option's text"]
    assert [word for word in [*readings, "set utility.label_base"] if word not in message] == []
    assert letters(make, write, [([0, 2, 1], 1)], label_base=base) == [letter]


def test_numbers_that_no_reading_fits_are_refused(refusal: Refusal, write: Write) -> None:
    records = [{"question": str(i), "choices": XYZ, "answer": i} for i in (0, 3)]
    message = refusal("multiple_choice", write("x.json", records), data={"path": "x.json", "test": None})
    assert "no reading fits all records" in message


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        ({"b": "x", "a": "y"}, "B", "B"),
        ({"a": "x", "b": "y"}, "b", "B"),
        ({"(A)": "x", "(B)": "y"}, "B", "B"),
        (["x", "y"], "(b)", "B"),
        (["x", "y"], "B.", "B"),
        (["x", "y"], "B. y", "B"),
        (["x", "y"], ["B"], "B"),
        (["x", "y"], [0, 1], "B"),
        ([{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "B", "B"),
        ({"choices": ["x", "y"], "labels": ["1", "2"]}, "2", "B"),
        ({"texts": ["x", "y"], "keys": ["p1", "q1"]}, "q1", "B"),
        ({"options": ["x", "y"], "key": ["p1", "q1"]}, "q1", "B"),
        ([{"id": "p1", "value": "x"}, {"id": "q1", "value": "y"}], "q1", "B"),
        ([{"key": "p1", "text": "x"}, {"key": "q1", "text": "y"}], "q1", "B"),
        ("['x', 'y']", "y", "B"),
        ([True, False], False, "B"),
    ],
)
def test_labels_in_other_spellings_are_understood(choices: Any, answer: Any, letter: str) -> None:
    assert read_choices(choices).letter_of(answer) == letter


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (["x"], "2 to 26 choices are needed, got 1"),
        ([str(i) for i in range(27)], "2 to 26 choices are needed, got 27"),
        ([{"label": "A", "text": "x"}, {"label": "A", "text": "y"}], "choices have repeated labels: A, A"),
        (7, "choices must be a mapping or a list, not int"),
        ("['x' 'y']", r"choices .\['x' 'y'\]. are text; write them as JSON"),
        ("x, y", "choices 'x, y' are text; write them as JSON"),
    ],
)
def test_what_are_no_options_is_refused(choices: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_choices(choices)


def test_several_right_options_are_refused() -> None:
    with pytest.raises(ValueError, match="one option must be right"):
        read_choices(XYZ).letter_of([1, 1, 0])


def test_true_and_false_are_the_options_yes_and_no(make: Make, write: Write) -> None:
    assert letters(make, write, [(["no", "yes"], True), (["no", "yes"], False), (["Yes", "No"], True)]) == [
        "B",
        "A",
        "A",
    ]


def test_options_can_be_the_keys_of_an_object_that_marks_the_right_one(make: Make, write: Write) -> None:
    marked = {"It rains": 0, "It snows": 1}
    root = write("x.json", [{"question": "q", "mc1_targets": marked}])
    columns = {"choices": "mc1_targets", "answer": "mc1_targets"}
    utility = make("multiple_choice", root, data={"path": "x.json", "test": None, "columns": columns})
    assert utility.example("validation", 0)["choices"] == {"A": "It rains", "B": "It snows"}
    assert utility.example("validation", 0)["answer"] == "B"
    assert read_choices({"A": 1, "B": 0}).texts == {"A": "1", "B": "0"}
    with pytest.raises(ValueError, match="one option must be right"):
        read_choices({"It rains": 1, "It snows": 1}).letter_of({"It rains": 1, "It snows": 1})


BLOOD = ["O", "A", "B", "AB"]


def test_letters_among_options_are_read_as_what_fits_all_answers(make: Make, write: Write) -> None:
    assert letters(make, write, [(BLOOD, "A"), (XYZ, "B")]) == ["A", "B"]
    assert letters(make, write, [(BLOOD, "A"), (XYZ, "y")]) == ["B", "B"]
    assert letters(make, write, [(BLOOD, "A"), (BLOOD, "O")]) == ["B", "A"]
    assert letters(make, write, [(["A", "B", "C"], "C")]) == ["C"]
    labeled = {"A": "B", "B": "A"}
    assert letters(make, write, [(labeled, "A"), ({"A": "x", "B": "y"}, "y")]) == ["B", "B"]


def test_a_letter_that_can_mean_two_options_is_refused_until_its_meaning_is_set(
    make: Make, refusal: Refusal, write: Write
) -> None:
    for records in ([(BLOOD, "A")], [(BLOOD, "A"), (XYZ, "y"), (XYZ, "B")]):
        root = write("x.json", [{"question": str(i), "choices": c, "answer": a} for i, (c, a) in enumerate(records)])
        message = refusal("multiple_choice", root, data={"path": "x.json", "test": None})
        assert (
            "x.json: validation[0] (id '0'): answer A can be A ('O') as label (label_base: label) or B ('A') as an"
            in message
        )
        answers = [letters(make, write, records, label_base=base)[0] for base in ("label", "text")]
        assert answers == ["A", "B"]


def test_a_problem_with_a_field_is_said_once(refusal: Refusal, write: Write) -> None:
    root = write("x.json", [{"question": "q", "choices": XYZ}])
    for kind in ("multiple_choice", "exact_match"):
        assert refusal(kind, root, data={"path": "x.json", "test": None}).count("x.json: validation[0]") == 1


def test_whole_floats_among_options_are_shown_as_whole_numbers() -> None:
    assert read_choices([10.0, 20.0]).lettered() == "A. 10\nB. 20"
