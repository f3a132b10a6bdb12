"""Conditions on node labels, in Ray's syntax."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DNS = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:(?=[A-Za-z0-9.-]{{1,253}}/){_DNS}(?:\.{_DNS})*/)?{_WORD}")
_CONDITION = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))")


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError("is not a label name; use letters, digits, dash, dot and underscore, with an optional prefix/")
    return text


def _condition(text: str) -> str:
    if not _CONDITION.fullmatch(text):
        raise ValueError("is not a condition on a label; write value, '!value', in(a, b) or '!in(a, b)'")
    return text


Labels = dict[Annotated[str, AfterValidator(_key)], Annotated[str, AfterValidator(_condition)]]
"""A condition for each label: `H100`, `!spot`, `in(a, b)`, `!in(a, b)`."""
