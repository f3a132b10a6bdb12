"""Reads the correct answers of a record: text, a number, a list, or an object of a known data set."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

TextReading = Literal["parsed", "whole"]
ANSWER_KEYS = (
    *("value", "text", "answer", "answers", "aliases", "short_answers", "spans"),
    *("normalized_value", "normalized_aliases"),
)
"""Keys of an object that hold answers (TriviaQA, SQuAD, Natural Questions, DROP); its other keys do not."""
_TRUTH = {True: ["True", "true", "Yes", "yes"], False: ["False", "false", "No", "no"]}
_KEYS_OF_DATA_SETS = frozenset(
    ("answer_start", "aliases", "normalized_value", "normalized_aliases", "spans", "short_answers", "start_token")
)
"""Keys that only objects of these data sets have."""
_REPR = re.compile(r"\{\s*['\"]\w+['\"]\s*:|\[\s*['\"]")


def read_references(answer: Any) -> list[str]:
    """All answers of which any is right, the main one first. A text is one answer; an empty one is none.

    Whole floats are also whole numbers: pandas writes integers as 59.0 if a column has gaps.

    Raises:
        ValueError: the answer is not one: an object without answers, or nothing.
    """
    found = [text for text in dict.fromkeys(_references(answer)) if text]
    if not found:
        raise ValueError(f"answer {str(answer)[:60]!r} is empty; remove records without an answer")
    return found


def parsed(value: Any, reading: TextReading | None) -> Any:
    """The content of an object or a list of texts that a file holds as text, in the notation of JSON or Python.

    The same text may be the answer itself: the output of code. Only the objects of known data sets are certain.

    Args:
        value: an answer; what is no such text is returned unchanged.
        reading: `parsed`, or `whole` for the text itself.

    Raises:
        ValueError: it can be both, or it holds the shortened print of an array.
    """
    if not isinstance(value, str) or reading == "whole" or not _REPR.match(value.strip()):
        return value
    content = content_of(value)
    if isinstance(content, Mapping) and set(content) & set(ANSWER_KEYS):
        certain = bool(set(content) & _KEYS_OF_DATA_SETS)
    elif isinstance(content, list) and all(isinstance(item, str) for item in content):
        certain = False
    elif content is None and ("array(" in value or _adjacent(value)):
        raise ValueError(
            f"{value[:60]!r} is the print of an array; save the data as JSONL or Parquet, or set "
            "utility.text_answers: whole if this text is the answer"
        )
    else:
        return value
    if certain or reading == "parsed":
        return content
    raise ValueError(
        f"answer {value[:60]!r} can be this text, or what it lists; set utility.text_answers: whole for the text, or "
        f"parsed for {', '.join(map(repr, read_references(content)[:3]))}"
    )


def content_of(text: str) -> Any:
    """What a text in the notation of JSON or Python means; None if it is neither."""
    for read in (json.loads, _literal):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _literal(text: str) -> Any:
    """A value in Python's notation, without texts that Python would join."""
    if _adjacent(text):
        raise ValueError
    return ast.literal_eval(text)


def _adjacent(text: str) -> bool:
    """Whether texts follow each other without a comma, as in the print of an array: ['a' 'b']."""
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline)]
    except (tokenize.TokenError, SyntaxError):
        return False
    return any(pair == (tokenize.STRING, tokenize.STRING) for pair in pairwise(k for k in kinds if k != tokenize.NL))


def is_missing(value: Any) -> bool:
    """Whether a value is null, or NaN, which pandas writes for null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def plain_number(value: Any) -> str:
    """A value as text; a whole float or decimal without its `.0`."""
    whole = isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)
    return str(int(value)) if whole else str(value)


def _references(answer: Any) -> list[str]:
    if is_missing(answer):
        return []
    if isinstance(answer, Mapping):
        keys = [key for key in ANSWER_KEYS if key in answer]
        if not keys:
            raise ValueError(
                f"answer is an object with the keys {', '.join(map(str, answer))}, none of which is known to hold "
                "answers; name the right one with data.columns, as in columns: {answer: answer.KEY}"
            )
        if isinstance(answer.get("spans"), list | tuple):
            return _drop(answer)
        return [text for key in keys for text in _references(answer[key])]
    if isinstance(answer, list | tuple):
        return [text for item in answer for text in _references(item)]
    if isinstance(answer, bool):
        return _TRUTH[answer]
    if not isinstance(answer, str | int | float | Decimal | date) or isinstance(answer, datetime):
        raise ValueError(f"answer {str(answer)[:60]!r} is of type {type(answer).__name__}; save it as text or a number")
    text = plain_number(answer).strip()
    if re.fullmatch(r"-?\d+\.0", text):
        return [text[:-2], text]
    return [text]


def _drop(answer: Mapping[str, Any]) -> list[str]:
    """DROP's answer: a number, a date or a span; or spans with their types, of which people gave one each.

    Raises:
        ValueError: several spans can be the parts of one answer, or the answers of different people.
    """
    if answer.get("number") not in (None, ""):
        return _references(answer["number"])
    day = answer.get("date")
    parts = [day.get(key) for key in ("day", "month", "year")] if isinstance(day, Mapping) else []
    if any(parts):
        return [" ".join(str(part) for part in parts if part)]
    spans, types = answer["spans"], answer.get("types") or []
    numbers = {span for span, kind in zip(spans, types, strict=False) if kind != "span"}
    if len({*spans} - numbers) > 1:
        raise ValueError(
            f"answer has the spans {', '.join(map(repr, spans))[:60]}, of which any or all can be needed; if any is "
            "right, name them with data.columns, as in columns: {answer: answers_spans.spans}"
        )
    return _references(spans)
