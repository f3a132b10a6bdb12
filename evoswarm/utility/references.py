"""Reads the correct answers of a record: text, a number, a list, or an object of a known data set."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

ANSWER_KEYS = (
    *("value", "text", "answer", "answers", "aliases", "short_answers", "spans"),
    *("normalized_value", "normalized_aliases"),
)
"""Keys of an object that hold answers (TriviaQA, SQuAD, Natural Questions, DROP); its other keys do not."""
_REPR = re.compile(r"\{\s*['\"]\w+['\"]\s*:")


def read_references(answer: Any) -> list[str]:
    """All answers of which any is right, the main one first.

    Whole floats are also whole numbers: pandas writes integers as 59.0 if a column has gaps.

    Raises:
        ValueError: the answer is not one: an object without answers, or nothing.
    """
    found = list(dict.fromkeys(_references(parsed(answer))))
    if not found:
        raise ValueError(f"answer {str(answer)[:60]!r} is empty; remove records without an answer")
    return found


def parsed(value: Any) -> Any:
    """An object that a CSV file holds as text, in the notation of JSON or Python; other values as they are.

    Raises:
        ValueError: it holds the shortened print of an array.
    """
    if not isinstance(value, str) or not _REPR.match(value.strip()):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            content = read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return content if isinstance(content, Mapping) and set(content) & set(ANSWER_KEYS) else value
    if "array(" in value:
        raise ValueError(f"{value[:60]!r} is the print of an array; save the data as JSONL or Parquet")
    return value


def is_missing(value: Any) -> bool:
    """Whether a value is null, or NaN, which pandas writes for null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def plain_number(value: Any) -> str:
    """A value as text; a whole float without its `.0`."""
    whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
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
        return [text for key in keys for text in _references(answer[key])]
    if isinstance(answer, list | tuple):
        return [text for item in answer for text in _references(item)]
    text = plain_number(answer).strip()
    if re.fullmatch(r"-?\d+\.0", text):
        return [text[:-2], text]
    return [text]
