"""Numbers in answers, as real models and data sets write them: the value, or None where it is not certain."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.utility.numbers import read_number

CASES = json.loads(Path(__file__).with_name("numbers.json").read_text(encoding="utf-8"))
"""Answers with their number as Decimal or Fraction prints it, and answers without a certain number."""


@pytest.mark.parametrize(("text", "number"), CASES["read"])
def test_the_number_of_an_answer_is_read(text: str, number: str) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize("text", CASES["not_certain"])
def test_a_number_that_is_not_certain_is_not_read(text: str) -> None:
    assert read_number(text) is None


def test_numbers_of_more_than_a_thousand_digits_are_not_read() -> None:
    assert read_number("9" * 1000) == "9" * 1000
    assert read_number("1e-900") == "0." + "0" * 899 + "1"
    for text in ("1" * 1001, "1e1001", "0.5e-1000", "2^9999", "1/" + "3" * 1200):
        assert read_number(text) is None


@given(st.integers(), st.sampled_from(["{}", "{}.", "${}", "{}%", "so {}", "= {} km", "({})", "{}.0", "{}.00."]))
def test_a_whole_number_survives_its_decoration(value: int, form: str) -> None:
    assert read_number(form.format(value)) == str(value)


@given(st.integers())
def test_thousands_separators_do_not_count(value: int) -> None:
    assert read_number(f"It is {value:,}.") == str(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_equal_decimals_have_one_canonical_form(value: Decimal) -> None:
    number = read_number(f"{value:f}")
    assert number is not None
    assert Decimal(number) == value
    assert number == read_number(f"{value:f}000") == read_number(number)


@given(st.integers(0, 10**12), st.integers(1, 9))
def test_digits_inside_a_longer_number_never_match(prefix: int, digit: int) -> None:
    assert read_number(f"{prefix + 1}{digit}") != str(digit)


@given(st.text(alphabet="0123456789.,-+$%/eE_ a)("))
def test_any_run_of_digits_and_signs_gives_a_canonical_number_or_none(text: str) -> None:
    number = read_number(text)
    assert number is None or read_number(number) == number
