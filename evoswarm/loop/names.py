"""Names of a generation's files. They are padded for people: compare numbers, never names, from 10,000 on."""

from __future__ import annotations

import re

_NAME = re.compile(r"gen_(\d+)(?!\d)")


def generation_name(generation: int) -> str:
    """`gen_0003`."""
    return f"gen_{generation:04}"


def generation_of(name: str) -> int | None:
    """The generation that a file name starts with; None if it names none."""
    match = _NAME.match(name)
    return int(match[1]) if match else None
