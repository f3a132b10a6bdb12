"""Finds secrets in configs. A config must not have any: it is saved with the run, logged and shown in reports."""

from __future__ import annotations

import re
from typing import Any

_NAMES = re.compile(
    r"(^|[_-])((hf|hub|api|auth|access|bearer|session|secret)[_-]?(token|key)|token|secret|password)$",
    re.IGNORECASE,
)
_VALUES = re.compile(
    r"""
    \b hf_[A-Za-z0-9]{30,}                        # Hugging Face
    | \b A(KI|SI)A[A-Z0-9]{16} \b                 # AWS
    | \b gh[pousr]_[A-Za-z0-9]{30,}               # GitHub
    | \b sk-[A-Za-z0-9_-]{20,}                    # OpenAI, Anthropic
    | \b AIza[A-Za-z0-9_-]{35}                    # Google
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    | [a-z0-9+]+://[^/\s:@]*:[^/\s@]+@            # user:password@ of a URL
    """,
    re.VERBOSE,
)
_REFERENCE = re.compile(r"(\w+ )?\$(\w+|\{\w+\})")
"""A value from the environment, as in `Bearer $KEY`."""


def secrets_in(data: Any, where: str = "") -> list[str]:
    """Places in plain data that look like secrets, by the key's name or the value's form; never the secret itself."""
    if isinstance(data, dict):
        return [place for key, value in data.items() for place in _of(str(key), value, where)]
    if isinstance(data, list):
        return [place for i, item in enumerate(data) for place in secrets_in(item, f"{where}.{i}")]
    return [where] if isinstance(data, str) and _VALUES.search(data) else []


def _of(key: str, value: Any, where: str) -> list[str]:
    place = f"{where}.{key}" if where else key
    if _NAMES.search(key) and isinstance(value, str) and value and not _REFERENCE.fullmatch(value):
        return [place]
    return secrets_in(value, place)
