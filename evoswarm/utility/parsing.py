"""Extracts an answer from generated text: a letter, a regular expression's match, or the text itself."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping

# "A" and "I" are also words: before a lowercase word they are letters only if that word continues the answer.
_GOES_ON = r"(?:because|since|as|is|which|due|though|but)\b|(?:and|or)\s+[A-Z](?![\w'’])"
_LETTER = rf"(?![AI]\s+(?!{_GOES_ON})[a-z])([A-Z])(?![\w'’])"
_ONE = r"(?![\"'*_)\]}.]* ?(?:,|/|&|and\b|or\b) ?[\"'*_(\[{]*[A-Z](?![\w'’]))"
"""No further letter follows: A and C, (A) or (C)."""
_ALONE = re.compile(r"[\s\"'*_(\[{]*([A-Za-z])[\s\"'*_)\]}.:]*", re.ASCII)
_STATED = re.compile(
    r"(?:(?i:\banswer\b ?(?:is|was|will be|would be|should be)? ?[:=]? ?(?:option |choice )?)"
    r"|答案 ?(?:是|为|為)? ?[:：]? ?|\\boxed\{ ?)(?:\\text\{)?[\"'*_(\[{]*" + _LETTER + _ONE
)
_LEADING = re.compile(r"\A[\s\"'*_(\[{]*([A-Z])(?=[.):\]}*](?!\w))" + _ONE)
_STANDING = re.compile(r"(?<![\w'’])" + _LETTER)
_WRONG = re.compile(
    r"[\"'*)\]}]* (?:isn['’]t|can['’]t|cannot|doesn['’]t"
    r"|(?:is|are|was) (?:\w+ )?(?:not|wrong|incorrect|false|out|ruled)\b)"
)
LETTER_PLACES = (re.compile(rf"\A{_ALONE.pattern}(?:\n|\Z)", re.ASCII), _STATED, _LEADING, _STANDING)
"""Where a letter is an answer, in the order of the rules of `parse_choice`."""
_DENIED = re.compile(
    r"(?:\b(?:not|except|neither|nor)|n['’]t|cannot)(?: be)?(?: option| choice)? [\"'(\[*]*$", re.IGNORECASE
)


def parse_choice(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter of a generated answer, or None if there is no letter or more than one.

    The first rule that applies decides:
    1. the first line is a letter and nothing else: `C`, `(C).`, `**C**`, `c`;
    2. the last statement of an answer: `the answer is C`, `Answer: (C)`, `\\boxed{C}`;
    3. the text starts with a marked letter, and does not repeat several options: `C) Paris`, `C. Paris`;
    4. the text is one option's text, ignoring case, white space and punctuation;
    5. exactly one letter of the options stands alone in the text, is no part of an option's text, and is not denied:
       `I would choose C, not A`, `C, because A is wrong`.
    """
    first_line = _ALONE.fullmatch(text.strip().partition("\n")[0])
    flat = " ".join(text.split())
    stated = _STATED.findall(flat)
    leading = None if _repeats(flat, choices) else _LEADING.match(flat)
    if first_line or stated or leading:
        letter = first_line[1].upper() if first_line else stated[-1] if stated else leading[1] if leading else ""
        return letter if letter in choices else None
    given, *options = (normalize(t, ignore_case=True, ignore_punctuation=True) for t in (text, *choices.values()))
    same = [letter for letter, option in zip(choices, options, strict=True) if option == given]
    if len(same) == 1 and given:
        return same[0]
    letters = [
        match
        for match in _STANDING.finditer(_without_options(flat, choices))
        if not _DENIED.search(flat, max(0, match.start() - 30), match.start()) and not _WRONG.match(flat, match.end())
    ]
    standing = {match[1] for match in letters} & set(choices)
    return standing.pop() if len(standing) == 1 else None


def _repeats(text: str, choices: Mapping[str, str]) -> bool:
    """Whether a text has several options with their letters: `A. Rome B. Bern`."""
    given = (
        re.search(rf"(?<!\w){letter}[.):]+ ?{re.escape(option)}", text, re.I) for letter, option in choices.items()
    )
    return sum(match is not None for match in given) > 1


def _without_options(text: str, choices: Mapping[str, str]) -> str:
    """The text with the texts of options blanked out: the A of `vitamin A` is no letter of an answer."""
    longer = [re.escape(option) for option in choices.values() if len(option) > 1]
    return (
        re.sub("|".join(sorted(longer, key=len, reverse=True)), lambda m: "_" * len(m[0]), text, flags=re.I)
        if longer
        else text
    )


def compiled(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """A regular expression that a user wrote.

    Raises:
        ValueError: it is none.
    """
    try:
        return re.compile(pattern, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern[:60]!r} is not a regular expression: {error}") from None


def matches(pattern: re.Pattern[str], text: str) -> list[str | None]:
    """All matches of a pattern that are not empty: their first group if there is one (None: it has no part in the
    match), else the whole match."""
    return [match[1] if pattern.groups else match[0] for match in pattern.finditer(text) if match[0]]


_MARK = re.compile(r"(?<![^\W\d_])[-\u2010-\u2015./:](?=\d)|([^\w\s]|_)")
"""A mark that is part of a number, or (its group) one that is not: 3.5 is not 35, and -5 is not 5."""


def _without_punctuation(match: re.Match[str]) -> str:
    mark = match[1]
    if mark is None:
        return match[0]
    return "" if mark in string.punctuation or unicodedata.category(mark).startswith("P") else mark


def normalize(text: str, *, ignore_case: bool = False, ignore_punctuation: bool = False) -> str:
    """Unicode form C without white space at the ends; then, as asked for, without case, punctuation, repeated space."""
    text = unicodedata.normalize("NFC", text).strip()
    if ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    if ignore_punctuation:
        text = " ".join(_MARK.sub(_without_punctuation, text).split())
    return unicodedata.normalize("NFC", text)
