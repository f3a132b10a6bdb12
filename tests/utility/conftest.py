"""Fixtures for the utility tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.errors import UserError
from evoswarm.utility import UTILITIES, make_utility

DATA = Path(__file__).parent / "data"


@pytest.fixture
def make() -> Callable[..., Any]:
    """make("exact_match", root, data=..., ...) builds a utility from its config."""
    return lambda kind, root=DATA, **settings: make_utility(UTILITIES[kind].config_class(**settings), root=root)


@pytest.fixture
def refusal(make: Callable[..., Any]) -> Callable[..., str]:
    """Returns the one-line error for a bad config."""

    def refused(kind: str, root: Path = DATA, **settings: Any) -> str:
        with pytest.raises(UserError) as caught:
            make(kind, root, **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes text, bytes, or an object as JSON to a file in the temporary folder; returns the folder."""

    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tmp_path

    return written
