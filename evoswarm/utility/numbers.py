"""Finds the number that a generated text gives as its answer. A text whose number is not certain has none."""

from __future__ import annotations

import re
from fractions import Fraction

from evoswarm.utility.notation import UNREADABLE, plain
from evoswarm.utility.number_words import number_word
from evoswarm.utility.numerals import canonical, read_numeral
from evoswarm.utility.quantities import Token, sentences_of, tokenize, value_of

_BOX = re.compile(r"\\f?boxed\s*(\{|(?=[-\d\\$.]))|\\fbox\s*\{")
_JOINED = re.compile(r"\}[\s$]*(?:,|,?\s*(?:and|or)|\\text\s*\{\s*(?:and|or)\s*\})[\s$]*$")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_STATED = re.compile(
    r"\banswer\b[*_\s]*(?:is|was|=|:|(?:will|would|should|must) be|equals)"
    r"(?:[*_\s:]|equal to\b|exactly\b|approximately\b|about\b)*",
    re.IGNORECASE,
)
MARKS = ((_BOX, re.compile("####")), (_STATED,))
"""What stands before an answer, in the order of the rules of `read_number`."""
_NOTHING = re.compile(
    r"(?:not|no|none|undefined|unknown|infinite|infinity|infinitely|impossible|cannot|between)\b", re.I
)
_LIST = re.compile(r"\s*1[.)]\s.*^\s*2[.)]\s", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"\n|[.!?](?=\s)(?!\s*\d)|(?<=[a-zA-Z)}*])[.!?](?=\s)")


def read_number(text: str) -> str | None:
    """The answer of a text as a number in canonical form, or None if there is none or it is not certain.

    The first rule that applies decides:
    1. the last `\\boxed{...}`, or the last line `#### ...` that starts with a number: its only number;
    2. the last statement `the answer is ...`, `Answer: ...` that starts with a number;
    3. the last number of the text.

    See docs/guides/utilities.md for what counts as a number.
    """
    marked = _marked(text)
    value = _stated_or_last(plain(text)) if marked is None else _only(marked)
    return None if value is None else canonical(value)


def _marked(text: str) -> str | None:
    """The content of the last box or `####` line. A box that is not closed, or is one of several, has no number."""
    boxes = ((match.start(), _boxed(text, match)) for match in reversed(list(_BOX.finditer(text))))
    filled = ((start, content) for start, content in boxes if content.strip())
    box = next(filled, None)
    if box and _JOINED.search(text, max(0, box[0] - 60), box[0]) and (other := next(filled, None)):
        box = box if _only(other[1]) == _only(box[1]) else (box[0], UNREADABLE)
    lines = ((match.start(), match[1]) for match in reversed(list(_HASHES.finditer(text))))
    line = next(((start, content) for start, content in lines if _starts_with_number(content)), None)
    return max(found)[1] if (found := [mark for mark in (box, line) if mark]) else None


def _boxed(text: str, match: re.Match[str]) -> str:
    if not match[0].endswith("{"):
        return re.split(r"[\s$]", text[match.end() :], maxsplit=1)[0]
    depth = 1
    for i in range(match.end(), len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[match.end() : i]
    return UNREADABLE


def _starts_with_number(line: str) -> bool:
    """Whether a `####` line is an answer and not a heading such as `#### Step 2` or `#### 2. Check`."""
    tokens = tokenize(plain(line))
    heading = re.match(r"\s*\d+\s*[.):]\s+\S", line)
    return bool(tokens) and tokens[0].is_run and not heading and sum(not token.is_run for token in tokens) <= 3


def _only(content: str) -> Fraction | None:
    """The number of a text that holds only one, or None."""
    text = plain(content).strip()
    tokens = [token for token in tokenize(text) if token.text.strip()]
    runs = [i for i, token in enumerate(tokens) if token.is_run]
    if not runs:
        return number_word(text)
    factorial = re.search(r"\d\s*!", text)
    return value_of(tokens, runs[0], whole=True) if len(runs) == 1 and not factorial else None


def _stated_or_last(text: str) -> Fraction | None:
    statements = list(_STATED.finditer(text))
    if statements:
        start = statements[-1].end()
        rest = text[start:]
        if _NOTHING.match(rest):
            return None
        end = _SENTENCE.search(rest)
        clause = rest[: end.start()] if end else rest
        tokens = tokenize(clause)
        if not any(token.is_run for token in tokens) and (value := number_word(clause)) is not None:
            return value
        if _starts_clause(tokens) and not _LIST.match(rest):
            return _only_value(tokens)
    tokens = tokenize(text)
    runs = [i for i, token in enumerate(tokens) if token.is_run]
    if not runs:
        return number_word(text)
    return None if _is_aside(text, tokens[runs[-1]]) else value_of(tokens, runs[-1], whole=len(tokens) == 1)


def _is_aside(text: str, run: Token) -> bool:
    """Whether a number stands in brackets that add to an earlier one: `5 apples (out of 7)`, `5 apples [1]`."""
    line = re.split(r"[\n\r]", text[: run.end])[-1]
    before = re.split(rf"(?<=[\d{UNREADABLE}])(?=[^\d{UNREADABLE}]*$)", line)[0]
    unclosed = [before.rfind(left) for left, right in ("()", "[]") if before.count(left) > before.count(right)]
    outside, inside = before[: max(unclosed, default=0)].rstrip(), before[max(unclosed, default=0) + 1 :].lstrip()
    is_value = outside.endswith(("=", ":")) or re.match(r"[-+]\d|\d[^A-Za-z]*/", inside)
    return bool(re.search(r"\d", outside)) and not is_value


def _starts_clause(tokens: list[Token]) -> bool:
    """Whether a clause is a number with at most a few words behind it, such as its unit."""
    words = [token for token in tokens if not token.is_run]
    first = next((i for i, token in enumerate(tokens) if token.is_run), len(tokens))
    before = [token.text.lower() for token in tokens[:first]]
    return (
        first < len(tokens)
        and len(words) <= 6
        and all(word in ("minus", "negative") or len(word) == 1 for word in before)
    )


def _only_value(tokens: list[Token]) -> Fraction | None:
    runs = [i for i, token in enumerate(tokens) if token.is_run]
    values = {value_of(tokens, i, whole=i == runs[0]) for i in runs}
    values |= {read_numeral(sentence) for i in runs for sentence in sentences_of(tokens[i])[:-1]}
    return values.pop() if len(values) == 1 else None
