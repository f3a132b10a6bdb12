"""Answers that a pattern or a schema judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Any]
Write = Callable[[str, Any], Path]
Refusal = Callable[..., str]
DATA = {"path": "d.json", "test": None}


def score(make: Make, root: Path, kind: str, text: str, **settings: Any) -> float:
    value = make(kind, root, data=DATA, **settings).outcome("validation", 0, text).score
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"pattern": r"\d+ apples"}, "I have 12 apples.", 1.0),
        ({"pattern": r"\d+ apples"}, "I have apples.", 0.0),
        ({"pattern": r"\d+", "whole": True}, " 12\n", 1.0),
        ({"pattern": r"\d+", "whole": True}, "12!", 0.0),
        ({"pattern": "sorry", "ignore_case": True}, "Sorry, no", 1.0),
        ({"pattern": "sorry", "invert": True}, "Sorry, no", 1.0),
        ({"pattern": "sorry", "invert": True}, "sorry", 0.0),
        ({}, "it is red", 1.0),
        ({}, "it is green", 0.0),
    ],
)
def test_a_pattern_decides(make: Make, write: Write, settings: dict[str, Any], text: str, expected: float) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": "red|blue"}]})
    assert score(make, root, "regex", text, **settings) == expected


def test_what_is_no_pattern_is_refused(write: Write, refusal: Refusal) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": "(red"}]})
    assert "utility.pattern '[' is not a regular expression" in refusal("regex", root, data=DATA, pattern="[")
    assert "answer '(red' is not a regular expression" in refusal("regex", root, data=DATA)
    root = write("d.json", {"dev": [{"question": "?", "answer": 7}]})
    assert "answer '7' is not a regular expression; or set utility.pattern" in refusal("regex", root, data=DATA)


ANSWER = {"name": "Ann", "age": 7, "tags": ["a", {"b": True}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ann", "age": 7.0, "tags": ["a", {"b": true}]}', 1.0),
        ('{"tags": ["a", {"b": true}], "age": 7, "name": "Ann", "more": 1}', 1.0),
        ('{"name": "Ann", "age": 8, "tags": ["a", {"b": 1}]}', 1 / 3),
        ('{"name": "Ann", "age": 7, "tags": ["a"]}', 2 / 3),
        ('Here it is:\n```json\n{"name": "Ann"}\n```\nBye', 1 / 3),
        ('```\n{"name": "Ann"}\n```\n```\n{"name": "Ann", "age": 7}\n```', 0.0),
        ('{"name": "Ann"', 0.0),
        ("{'name': 'Ann'}", 0.0),
        ('["Ann"]', 0.0),
        ('{"age": NaN, "name": "Ann"}', 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_the_share_of_right_fields(make: Make, write: Write, text: str, expected: float) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": ANSWER}]})
    assert score(make, root, "json", text) == pytest.approx(expected)
    assert score(make, root, "json", text, partial=False) == float(expected == 1.0)


def test_a_schema_decides_what_is_valid(make: Make, write: Write) -> None:
    write("s.json", {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]})
    root = write("d.json", {"dev": [{"question": "?"}, {"question": "??"}]})
    utility = make("json", root, data=DATA, json_schema="s.json", fields=[])
    outcomes = utility.outcomes("validation", [0, 1], ['{"age": 1}', '{"age": "1"}'])
    assert [outcome.score for outcome in outcomes] == [1.0, 0.0]
    assert utility.metrics("validation", [1.0, 0.0], [outcome.statistics for outcome in outcomes]) == {"valid": 0.5}


def test_answers_and_schemas_that_do_not_fit_are_refused(write: Write, refusal: Refusal) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": "seven"}]})
    assert "answer 'seven' is not a JSON object; or set utility.fields: []" in refusal("json", root, data=DATA)
    root = write("d.json", {"dev": [{"question": "?", "answer": '{"age": 7}'}]})
    assert "answer has no field 'name'" in refusal("json", root, data=DATA, fields=["name"])
    write("s.json", {"type": "object", "required": ["name"]})
    assert "does not satisfy utility.json_schema" in refusal("json", root, data=DATA, json_schema="s.json")
    write("bad.json", {"type": "objekt"})
    assert "is not a JSON Schema" in refusal("json", root, data=DATA, json_schema="bad.json")
    assert "No such file" in refusal("json", root, data=DATA, json_schema="none.json")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "$ref '#/$defs/b' leads to nothing in this file"),
        ({"$ref": "http://127.0.0.1:1/other.json"}, "$ref 'http://127.0.0.1:1/other.json' leads to nothing"),
        ({"$ref": "#"}, "$ref '#' leads to nothing"),
        ({"$schema": 5}, "is not a JSON Schema"),
    ],
)
def test_a_schema_that_would_fail_in_the_middle_of_a_run_is_refused(
    write: Write, refusal: Refusal, schema: Any, words: str
) -> None:
    write("schema.json", schema)
    root = write("d.json", {"dev": [{"question": "?"}]})
    assert words in refusal("json", root, data=DATA, json_schema="schema.json", fields=[])


def test_an_answer_with_half_a_character_is_not_valid(make: Make, write: Write) -> None:
    root = write("d.json", {"dev": [{"question": "?"}]})
    assert score(make, root, "json", '{"a": "\\ud83d"}', fields=[]) == 0.0
    assert score(make, root, "json", '{"a": "\\ud83d\\ude00"}', fields=[]) == 1.0


def test_a_pattern_that_python_cannot_hold_is_refused(write: Write, refusal: Refusal) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": "a{99999999999}"}]})
    words = "'a{99999999999}' is not a regular expression: the repetition number is too large"
    assert f"utility.pattern {words}" in refusal("regex", root, data=DATA, pattern="a{99999999999}")
    assert f"answer {words}" in refusal("regex", root, data=DATA)
    assert f"utility.extract {words}" in refusal("exact_match", root, data=DATA, extract="a{99999999999}")


def test_patterns_are_not_shown_as_solved_examples(make: Make, write: Write, refusal: Refusal) -> None:
    root = write("d.json", {"dev": [{"question": f"{i}?", "answer": r"\d+"} for i in range(3)]})
    assert "would show patterns as answers" in refusal("regex", root, data=DATA, prompt={"few_shot": 1})
    assert make("regex", root, data=DATA, pattern="x", prompt={"few_shot": 1}).size("validation") == 2
