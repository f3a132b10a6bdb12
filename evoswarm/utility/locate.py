"""Finds where a parser found the answer in a generated text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evoswarm.utility.numbers import MARKS, read_number
from evoswarm.utility.parsing import LETTER_PLACES

_NUMERAL = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?|[-−]?\.\d+")
_NEXT = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+")


@dataclass(frozen=True)
class Place:
    """Where an answer is: text[start:end]."""

    start: int
    end: int

    @classmethod
    def of(cls, match: re.Match[str]) -> Place:
        """The first group of a match if its pattern has one, else the whole match."""
        return cls(*match.span(1 if match.re.groups else 0))


def number_place(text: str, value: str, *, start: int = 0) -> Place | None:
    """The numeral of this value that `read_number` found from `start` on: behind the deciding mark, or the last."""
    for patterns in MARKS:
        for mark in sorted((m.end() for pattern in patterns for m in pattern.finditer(text, start)), reverse=True):
            first = _NUMERAL.search(text, mark)
            if first and read_number(first[0]) == value:
                return Place.of(first)
    same = [match for match in _NUMERAL.finditer(text, start) if read_number(match[0]) == value]
    return Place.of(same[-1]) if same else None


def letter_place(text: str, letter: str) -> Place | None:
    """The letter that `parse_choice` found, by the first of its rules that leads to it."""
    for pattern in LETTER_PLACES:
        found = [match for match in pattern.finditer(text) if match[1].upper() == letter]
        if found:
            return Place.of(found[-1])
    return None


def match_place(pattern: re.Pattern[str], text: str) -> Place | None:
    """The last match of a pattern; see `matches`."""
    found = [Place.of(match) for match in pattern.finditer(text) if match[0]]
    return found[-1] if found and found[-1].start >= 0 else None


def what_follows(text: str, place: Place) -> str:
    """The word or mark after an answer; empty if the text ends there."""
    found = _NEXT.match(text, place.end)
    return found[0] if found else ""
