from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.utility.parsing import matches, normalize, parse_choice

CHOICES = {"A": "Madrid", "B": "Rome", "C": "Paris", "D": "Vienna"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        (" C", "C"),
        ("(C)", "C"),
        ("**C**", "C"),
        ("C.\n\nQuestion: next one\nAnswer: B", "C"),
        ("Answer: C", "C"),
        ("answer: (C)", "C"),
        ("The answer is C.", "C"),
        ("The correct answer is option C", "C"),
        ("The answer is: **C**", "C"),
        ("Answer:\nC", "C"),
        ("The answer" + "\n " * 5000 + "is" + " " * 5000 + ": C", "C"),
        ("_Answer: **(C)**_", "C"),
        ("answer is B.\nMore answer" + " " * 20000, "B"),
        ("The answer is A because Madrid is", "A"),
        ("The answer is A. No, the answer is D.", "D"),
        (r"so \boxed{C}", "C"),
        (r"so \boxed{\text{C}}", "C"),
        ("C) Paris", "C"),
        ("C. Paris, as A and B are not in France", "C"),
        ("I would choose C", "C"),
        ("I would choose C, not A", "C"),
        ("The answer isn't A, it's B", "B"),
        ("c", "C"),
        ("(c)", "C"),
        ("答案是C。", "C"),
        ("It's C, I think.", "C"),
        ("A capital like this must be B.", "B"),
        ("paris.", "C"),
        ("The answer is A, I think", "A"),
        ("The answer is B and I am sure", "B"),
        ("Option A is incorrect. Option C is correct.", "C"),
        ("A isn't right, so B", "B"),
        ("C, because A is wrong and B is clearly out", "C"),
        ("C) Paris. A) is wrong", "C"),
    ],
)
def test_the_letter_of_an_answer_is_found(text: str, letter: str) -> None:
    assert parse_choice(text, CHOICES) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A good question",
        "(A) and (C)",
        "**A** or **C**",
        "The answer is (A) and (C)",
        "Answer: (A), (C)",
        "C is incorrect",
        "Option C cannot be right",
        "A. Madrid B. Rome C. Paris",
        "Answer: A good question deserves time",
        "Actually, Berlin",
        "Answer: E",
        "The answer is X.",
        "Answers vary",
        "A or B",
        "Answer: A or B",
        "Neither B nor C",
        "The answer is not A.",
        "Not A",
        "It cannot be option B",
        "U.S. cities",
        "DAB",
        "B's",
        "the answer is c",
        "answerC",
    ],
)
def test_a_text_without_one_clear_letter_has_no_answer(text: str) -> None:
    assert parse_choice(text, CHOICES) is None


def test_the_pronoun_i_is_not_the_ninth_option() -> None:
    ten = {letter: f"text {letter}" for letter in "ABCDEFGHIJ"}
    assert parse_choice("I think it is J", ten) == "J"
    assert parse_choice("I think so", ten) is None
    assert parse_choice("The answer is (I).", ten) == "I"


def test_a_letter_of_the_alphabet_comes_before_the_text_of_another_option() -> None:
    assert parse_choice("A", {"A": "B", "B": "A"}) == "A"


@given(st.text())
def test_the_parsed_letter_is_an_option_and_stands_alone_in_the_text_or_is_its_text(text: str) -> None:
    letter = parse_choice(text, CHOICES)
    if letter is not None:
        alone = re.search(rf"(?<!\w){letter}(?!\w)|答案.*{letter}", text.replace("_", " "), re.IGNORECASE)
        assert alone or CHOICES[letter].casefold() in text.casefold()


@given(st.text(alphabet=string.ascii_letters, min_size=2))
def test_a_single_word_is_never_a_letter(word: str) -> None:
    assert parse_choice(word, {"A": "first option", "B": "second option"}) is None


def test_a_letter_in_the_text_of_an_option_is_no_answer() -> None:
    vitamins = {"A": "Vitamin C", "B": "Vitamin A", "C": "Iron"}
    assert [parse_choice(text, vitamins) for text in ("It's vitamin A.", "Vitamin A", "I choose B, vitamin A")] == [
        None,
        "B",
        "B",
    ]


def test_extraction_gives_the_first_group_of_all_matches_that_are_not_empty() -> None:
    assert matches(re.compile(r"#### (\d+) (\w+)"), "#### 1 a #### 2 b") == ["1", "2"]
    assert matches(re.compile(r"\d+"), "1 2 34") == ["1", "2", "34"]
    assert matches(re.compile(r"\d+"), "none") == []
    assert matches(re.compile(r"(\d+)|nothing"), "5 nothing") == ["5", None]
    assert matches(re.compile(r"(?s)(.*)"), "a\nb") == ["a\nb"]


def test_text_is_normalized_as_asked_for_and_no_further() -> None:
    assert normalize("  The  U.S.\n") == "The  U.S."
    assert normalize("The  U.S.", ignore_punctuation=True) == "The US"
    assert normalize("Straße", ignore_case=True) == "strasse"
    assert normalize("e\u0301") == "\u00e9"
    assert normalize("« oui » — non", ignore_punctuation=True) == "oui non"


@given(st.text(), st.booleans())
def test_normalizing_twice_changes_nothing(text: str, punctuation: bool) -> None:
    once = normalize(text, ignore_punctuation=punctuation)
    assert normalize(once, ignore_punctuation=punctuation) == once
