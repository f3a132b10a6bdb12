"""Reads the quantities of a text in plain notation (`notation.plain`): a number with the words around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from evoswarm.utility.notation import UNREADABLE
from evoswarm.utility.number_words import (
    DENIALS,
    DOUBTFUL,
    DOUBTFUL_LETTERS,
    FAMILIES,
    FUNCTIONS,
    JOINS,
    SCALES,
    UNITS_OF_ONE_LETTER,
)
from evoswarm.utility.numerals import read_numeral

# A word keeps digits and exponents that belong to it: GPT4, GPT-4, x_1, cm^2.
_LETTER = r"[^\W\d_]"
_TOKEN = re.compile(
    rf"(?P<word>\\?{_LETTER}(?:{_LETTER}|['\d]|\.(?={_LETTER}\.)|-(?={_LETTER})|(?<=\w\w)-\d+|(?<=\d)\.\d+)*"
    r"(?:_\{[^{}]*\}|_\w+)?(?:\^\s*(?:\{[^{}]*\}|-?\d+|\w))?)|(?P<line>[\n\r]+)|(?P<run>(?:[^\w\n\r]|[\d_])+)"
)


@dataclass(frozen=True)
class Token:
    """A word, a line break, or a run, with its place in the text."""

    text: str
    start: int
    end: int
    is_run: bool
    """Whether it has digits or unreadable symbols, and is no word."""


def tokenize(text: str) -> list[Token]:
    """Words, line breaks, and runs of other characters that hold a number."""
    tokens = []
    for match in _TOKEN.finditer(text):
        run = match["run"] is not None
        if not run or re.search(rf"[\d{UNREADABLE}]", match[0]):
            tokens.append(Token(match[0], match.start(), match.end(), run))
    return tokens


def sentences_of(run: Token) -> list[str]:
    """A run without the ends of its sentences: `5. 3 + 2 = 5` has two."""
    return re.split(r"(?<=[\d%)\]}])[.!?]+\s+(?=\S)", run.text)


def value_of(tokens: list[Token], at: int, *, whole: bool) -> Fraction | None:
    """The value of the run at `at`, or None if it is part of a larger expression, list, range or time.

    `whole`: the run starts the answer, so that a minus may be followed by a space.
    """
    run, before, after = tokens[at], tokens[:at], tokens[at + 1 :]
    sentences = sentences_of(run)
    sides = re.split(r"[=≈]", sentences[-1])
    related = len(sides) > 1
    starts = len(sentences) > 1 or related
    scale, segment = _scale(run, after), _trimmed(sides[-1], bool(after) and after[0].start == run.end)
    if scale is None or segment is None or _is_joined(before, starts, after):
        return None
    previous = before[-1] if before and not starts else None
    if previous is not None and (_continues(previous, run, after) or _is_argument(before, run)):
        return None
    value = read_numeral(segment)
    if value is None or (re.match(r"[-+]\s", segment) and not (whole or related)):
        return None
    negated = previous is not None and previous.text.lower() in ("minus", "negative")
    if negated and segment[:1] in "+-":
        return None
    return (-value if negated else value) * scale


def _trimmed(segment: str, followed: bool) -> str | None:
    """Without the punctuation around a number; None if a number is cut off or a decimal continues (`0.333...`)."""
    segment = segment.strip()
    if re.search(r"[<>|]\S", segment) or re.search(r"\d\.\d+\s*\.{2,}", segment):
        return None
    segment = re.sub(r"^(?:\.{2,}|[\s,:;!?'\"#~|]|\.(?!\d))+", "", segment)
    segment = re.sub(r"[\s.,:;!?'\"|~]+$", "", segment)
    if followed:
        segment = segment.rstrip("-/").rstrip() if re.search(r"[\d$€£¥₹%][-/]$", segment) else segment
    segment = re.sub(r"^[)\]}]+[.:]?(?=\s)|(?<=\s)[(\[{]+$", "", segment).strip()
    for _ in range(4):
        if segment and segment[0] in "([{" and _depth(segment) > 0:
            segment = segment[1:].lstrip(" ,:;'\"")
        elif segment and segment[-1] in ")]}" and _depth(segment) < 0:
            segment = segment[:-1].rstrip(" .,:;!?'\"")
    segment = re.sub(r"^['\"]|['\"]$", "", segment)
    tuple_like = re.fullmatch(r"[(\[]\s*\d{1,3}(?:,[1-9]\d{2})+\s*[)\]]", segment)
    return None if tuple_like else segment


def _depth(text: str) -> int:
    return sum((c in "([{") - (c in ")]}") for c in text)


def _continues(previous: Token, run: Token, after: list[Token]) -> bool:
    """Whether the word before a run belongs to it (`x + 5`, `f(5)`, `n/2`), or numbers a line of a list."""
    body, word = run.text.lstrip(), previous.text
    if "\n" in word:
        return bool(after) and re.fullmatch(r"\d+[.)]\s+", body) is not None
    tight = body == run.text
    if re.match(r"[-+]\S", body) and not tight:
        return len(word) == 1 and word not in "aAI"
    if body[0] in "-+×/^*_" or re.match(r"[)\]}]\s*[-+×/^]", body) or (body[0] == "," and len(word) == 1):
        return True
    return tight and (body[0] in "([{" or re.match(r"\.\d", body) is not None)


def _is_argument(before: list[Token], run: Token) -> bool:
    """Whether a function is applied to a run, or it is denied: `sqrt 2`, `half of 10`, `5 of the 7`, `not 5`."""
    if re.match(r"\s*[.,:;!?=]", run.text):
        return False
    words, part = before[-5:], False
    near = [token.text.lower() for token in words if not token.is_run]
    if ("out", "of") in pairwise(near):
        return True
    while words and words[-1].text.lower() in ("of", "the", "a", "total", "every", "just", "only"):
        part = words.pop().text.lower() == "of" or part
    if not words or words[-1].is_run:
        return bool(words) and part
    word = words[-1].text.lower()
    return word in FUNCTIONS | DENIALS or word.endswith("n't")


def _scale(run: Token, after: list[Token]) -> int | None:
    """The factor of the word behind a run; None if the word makes the number doubtful."""
    if re.search(r"=\s*$", run.text):
        return None
    if not after or "\n" in after[0].text or re.search(r"[.,;:!?]\s*$", run.text):
        return 1
    word, attached = after[0].text, after[0].start == run.end and not run.text[-1].isspace()
    if word in SCALES or word.lower() in SCALES:
        return SCALES.get(word, SCALES.get(word.lower()))
    following = {token.text.lower().rstrip(".") for token in after[: 3 if word.lower() == "and" else 1]}
    if word.lower() == "of" and len(after) > 1 and after[1].text.lower() in ("which", "whom"):
        return None
    if following & DOUBTFUL or word.lower() in ("plus", "minus") or (word.lower() == "and" and "half" in following):
        return None
    base = re.split(r"[\^_]", word)[0].rstrip("23")
    if re.search(r"\d", re.sub(r"[23]$|\^.*$", "", word)):
        return None
    if len(base) == 1 and (word != "a" or attached):
        if attached and base.isascii() and not run.text.endswith(("-", "/", "'", "(", "[")):
            return 1 if base in UNITS_OF_ONE_LETTER and not re.search(r"[$€£¥₹]", run.text) else None
        return None if base in DOUBTFUL_LETTERS or "Α" <= base <= "ω" and base != "Ω" else 1
    return 1


def _is_joined(before: list[Token], cut: bool, after: list[Token]) -> bool:
    """Whether a number is one of several: `5 or 6`, `5 to 6`, `5 feet 3 inches`."""
    if after and after[0].text.lower() in JOINS and len(after) > 1 and after[1].is_run:
        return True
    last = next((i for i in range(len(before) - 1, -1, -1) if before[i].is_run or "\n" in before[i].text), None)
    if last is None or not before[last].is_run or re.search(r"[.!?;:]\s+$", before[last].text):
        return False
    gap = [token.text.lower() for token in before[last + 1 :]]
    if cut:
        return len(gap) == 2 and (gap[0] == "or" or (gap[0] == "and" and last > 0 and before[last - 1].text == gap[1]))
    if gap and all(word in (*JOINS, "out") for word in gap):
        return True
    if gap[-1:] == ["or"] or (len(gap) == 2 and gap[1] in ("to", "of")):
        return True
    if gap[:1] and gap[0] in SCALES and gap[1:] in ([], ["and"]):
        return True
    unit = after[0].text.lower() if after else ""
    return (
        gap[:1] not in ([], [unit])
        and (len(gap) == 1 or gap[1:] == ["and"])
        and any(gap[0] in family and unit in family for family in FAMILIES)
    )
