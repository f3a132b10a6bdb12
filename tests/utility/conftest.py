"""What the tests of the utilities share."""

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
    """make("exact_match", root, data=..., ...): the utility of a configuration."""
    return lambda kind, root=DATA, **settings: make_utility(UTILITIES[kind].config_class(**settings), root=root)


@pytest.fixture
def refusal(make: Callable[..., Any]) -> Callable[..., str]:
    """The one line with which a configuration is refused."""

    def refused(kind: str, root: Path = DATA, **settings: Any) -> str:
        with pytest.raises(UserError) as caught:
            make(kind, root, **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write text, bytes, or an object as JSON to a file of the temporary folder, which is returned."""

    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tmp_path

    return written
