"""Every message that the troubleshooting page quotes is one that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
FROM_ELSEWHERE = ("No space left on device",)
"""Messages of the operating system."""
QUOTED = [
    heading
    for heading in re.findall(r"^### `(.*)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if heading not in FROM_ELSEWHERE
]


def parts(node: ast.AST) -> Iterator[str]:
    """The constant parts of a string expression, with ... in place of what is filled in."""
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from parts(value) if isinstance(value, ast.Constant) else ("...",)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


@cache
def messages() -> list[str]:
    """All strings in the code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.glob("evoswarm/**/*.py")]
    return ["".join(parts(node)) for tree in trees for node in ast.walk(tree)]


def test_the_page_has_messages() -> None:
    assert len(QUOTED) >= 25


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_in_the_code(quoted: str) -> None:
    """Its fixed parts occur in one string, in this order."""
    pattern = ".*".join(map(re.escape, quoted.split("...")))
    assert any(re.search(pattern, message, flags=re.DOTALL) for message in messages())
