"""Errors of `evoswarm tune` on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from echo import make_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = make_world(tmp_path, validation=10, test=5) | {"tune": {"trials": 2}}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.yaml",), "none.yaml: cannot be read"),
        (("tune.yaml", "--set", "tune.trails=3"), "unknown key trails; did you mean trials"),
        (("tune.yaml", "--set", "tune.space={search.inertai: {choice: [1]}}"), "did you mean inertia?"),
        (("tune.yaml", "--set", "search.type=lorahub"), "nothing is published for lorahub"),
        (("tune.yaml", "--set", "pool=nowhere"), "nowhere"),
    ],
)
def test_mistakes_give_one_error_line_and_status_2_and_write_nothing(
    world: Path, arguments: tuple[str, ...], words: str, error_of: Callable[..., str]
) -> None:
    assert words in error_of("tune", *arguments)
    assert not (world / "runs").exists()


def test_without_ray_tune_the_error_says_what_to_install(
    world: Path, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "evoswarm.tune.run", None)
    assert "pip install '.[tune]'" in error_of("tune", "tune.yaml")
