from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evoswarm.utility import Generate, Outcome
from evoswarm.utility.exact_match import ExactMatch, ExactMatchUtility

Make = Callable[..., Any]
Refusal = Callable[..., str]
Write = Callable[[str, Any], Path]


def test_numbers_are_compared_as_numbers(make: Make) -> None:
    utility = make("exact_match", data="numbers.json", mode="numeric")
    assert utility.outcome("validation", 0, "That makes 1000.0.") == Outcome(1.0, "1000")
    assert utility.outcome("validation", 1, "-3") == Outcome(1.0, "-3")
    assert utility.outcome("validation", 1, "3") == Outcome(0.0, "3")
    assert utility.outcome("validation", 2, "1.50") == Outcome(1.0, "1.5")


def test_a_number_is_never_matched_inside_a_longer_one(make: Make) -> None:
    utility = make("exact_match", data="numbers.json", mode="numeric")
    assert utility.outcome("validation", 3, "5").score == 0.0
    assert utility.outcome("validation", 3, "115").score == 0.0
    assert utility.outcome("validation", 3, "15.5").score == 0.0


def test_text_is_compared_as_a_whole(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answer": "New York."}])
    data = {"path": "x.json", "test": None}
    plain = make("exact_match", root, data=data)
    assert plain.outcome("validation", 0, " New York.\n") == Outcome(1.0, "New York.")
    assert plain.outcome("validation", 0, "New York").score == 0.0
    assert plain.outcome("validation", 0, "It is New York.").score == 0.0
    loose = make("exact_match", root, data=data, ignore_case=True, ignore_punctuation=True)
    assert loose.outcome("validation", 0, "new  york!") == Outcome(1.0, "new york")


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        ("3.5", ["3.5.", "(3.5)", '"3.5"'], ["35", "3 5"]),
        ("-5", ["-5!", "(-5)"], ["5"]),
        ("1/2", ["1/2."], ["12"]),
        ("10:30", ["10:30."], ["1030"]),
        ("1,000", ["1000", "1,000."], ["100"]),
        ("Covid-19", ["Covid19", "Covid-19."], ["Covid-1"]),
        ("U.S.", ["US", "U.S"], ["USA"]),
        ("No. 5", ["No 5", "#No. 5"], ["No .5"]),
    ],
)
def test_punctuation_that_is_part_of_a_number_counts(
    make: Make, write: Write, reference: str, right: list[str], wrong: list[str]
) -> None:
    root = write("x.json", [{"question": "q", "answer": reference}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None}, ignore_punctuation=True)
    assert [utility.outcome("validation", 0, text).score for text in right + wrong] == [1.0] * len(right) + [0.0] * len(
        wrong
    )
    for text in right:
        assert not any(utility.ruled_out("validation", 0, text[:n]) for n in range(len(text) + 1))


def test_any_of_several_references_is_correct(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answer": ["NYC", "New York"]}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None})
    assert [utility.outcome("validation", 0, text).score for text in ("NYC", "New York", "York")] == [1.0, 1.0, 0.0]


def test_a_worked_solution_is_a_valid_numeric_reference(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answer": "2 and 16 make 18.\n#### 18"}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None}, mode="numeric")
    assert utility.outcome("validation", 0, "18").score == 1.0


def test_an_expression_extracts_the_answer(make: Make) -> None:
    utility = make("exact_match", data="numbers.json", mode="numeric", extract=r"answer is (\S+)")
    assert utility.outcome("validation", 3, "the answer is 14, no, the answer is 15. Next: 3") == Outcome(1.0, "15")
    assert utility.outcome("validation", 3, "15") == Outcome(0.0, None)


def test_an_expression_takes_the_answer_out_of_a_worked_solution_too(
    make: Make, refusal: Refusal, write: Write
) -> None:
    settings = {"data": {"path": "x.json", "test": None}, "extract": r"\\boxed\{(.*?)\}"}
    root = write("x.json", [{"question": "q", "answer": "It is even: $\\boxed{x+1}$."}])
    utility = make("exact_match", root, **settings)
    assert [utility.outcome("validation", 0, f"\\boxed{{{text}}}").score for text in ("x+1", "x")] == [1.0, 0.0]
    root = write("x.json", [{"question": "q", "answer": "x+1"}])
    assert make("exact_match", root, **settings).outcome("validation", 0, "\\boxed{x+1}").score == 1.0
    root = write("x.json", [{"question": "q", "answer": "\\boxed{x}, \\boxed{y}"}])
    assert "utility.extract finds 'x' and 'y' in answer" in refusal("exact_match", root, **settings)


def test_empty_matches_of_an_expression_do_not_count(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answer": "a"}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None}, extract="(?s)(.*)")
    assert [utility.outcome("validation", 0, text).score for text in ("a", "b", "")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("mode", ["text", "numeric"])
def test_an_answer_that_cannot_be_read_is_wrong_and_has_not_failed(make: Make, mode: str) -> None:
    assert make("exact_match", data="numbers.json", mode=mode).outcome("validation", 0, " \n") == Outcome(0.0, None)


def test_equal_numbers_vote_together(make: Make) -> None:
    utility = make("exact_match", data="numbers.json", mode="numeric")
    answers = [utility.outcome("validation", 0, text).prediction for text in ("999", "1,000", "1000.00", "none")]
    assert utility.vote("validation", 0, answers) == Outcome(1.0, "1000")


@pytest.mark.parametrize(
    ("answer", "settings", "words"),
    [
        ("many", {"mode": "numeric"}, ["answer 'many' holds no number that is certain"]),
        (["5", "many"], {"mode": "numeric"}, ["holds no number that is certain"]),
        (" ", {}, ["answer ' ' is empty; remove records without an answer"]),
        ("!", {"ignore_punctuation": True}, ["answer '!' is empty after normalization"]),
        ([], {}, ["answer '[]' is empty"]),
    ],
)
def test_references_that_nothing_can_match_are_rejected(
    refusal: Refusal, write: Write, answer: Any, settings: dict[str, Any], words: list[str]
) -> None:
    root = write("x.json", {"dev": [{"question": "q", "answer": answer, "id": 4}]})
    message = refusal("exact_match", root, data={"path": "x.json", "test": None}, **settings)
    assert [word for word in ["x.json: dev[0] (id '4')", *words] if word not in message] == []


def test_an_invalid_expression_is_rejected(refusal: Refusal) -> None:
    message = refusal("exact_match", data="numbers.json", extract="(")
    assert "utility.extract '('" in message


def test_the_reference_is_the_draft_where_the_whole_text_is_compared(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answer": ["5", "5 of them"]}])
    data = {"path": "x.json", "test": None}

    def draft(**settings: Any) -> str | None:
        (request,) = make("exact_match", root, data=data, **settings).requests("validation")
        assert isinstance(request, Generate)
        return request.draft

    assert draft() == " 5"
    assert draft(prompt={"chat_template": True}) == "5"
    assert draft(mode="numeric") is None
    assert draft(extract="(.)") is None


@pytest.mark.parametrize(
    ("beginning", "settings", "expected"),
    [
        ("New", {}, False),
        ("new", {}, True),
        ("new", {"ignore_case": True}, False),
        ("  New", {}, False),
        (" \n", {}, False),
        ("New York!", {}, True),
        ("New York!", {"ignore_punctuation": True}, False),
        ("Los", {}, False),
        ("Los Angeles is", {}, True),
        ("M", {}, False),
        ("Ma", {}, True),
        ("M\u00fc", {}, False),
    ],
)
def test_a_beginning_rules_out_what_no_reference_begins_with(
    make: Make, write: Write, beginning: str, settings: dict[str, Any], expected: bool
) -> None:
    root = write("x.json", [{"question": "q", "answer": ["New York", "Los Angeles", "M\u00fcnchen"]}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None}, **settings)
    assert utility.ruled_out("validation", 0, beginning) is expected


TEXT = st.text(st.sampled_from("aAe <.-\n\u0301\u0338\u00e9\u0130i\u212a\u00df"), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, ExactMatchUtility]:
    root = tmp_path_factory.mktemp("law")
    (root / "x.json").write_text('[{"question": "q", "answer": "x"}]', encoding="utf-8")
    data = {"path": "x.json", "test": None}
    settings = {fold: ExactMatch(data=data, ignore_case=fold, ignore_punctuation=fold) for fold in (True, False)}
    return {fold: ExactMatchUtility(config, root=root) for fold, config in settings.items()}


@given(answer=TEXT, reference=TEXT, end=st.integers(1, 6), fold=st.booleans())
def test_no_answer_that_is_right_has_a_beginning_that_is_ruled_out(
    loose: dict[bool, ExactMatchUtility], answer: str, reference: str, end: int, fold: bool
) -> None:
    utility = loose[fold]
    fields = utility._examples["validation"][0].fields
    for right in (reference, answer):
        fields["answer"] = right
        if utility._comparable(right) is None:
            continue
        score = utility.outcome("validation", 0, answer).score
        assert right != answer or score == 1.0
        assert score == 0.0 or not utility.ruled_out("validation", 0, answer[:end])


def test_an_empty_stop_string_is_rejected() -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        ExactMatch(data="x.json", stop=["\n", ""])
