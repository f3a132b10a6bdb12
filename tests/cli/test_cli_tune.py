"""Errors of `evoswarm tune` on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from echo import make_world

from evoswarm.cli.main import main


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = make_world(tmp_path, validation=10, test=5) | {"tune": {"trials": 2}}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["evoswarm", "tune", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    error = capsys.readouterr().err
    assert (exit_.value.code, error.count("\n")) == (2, 1), error
    assert error.startswith("error: ")
    return error


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
    world: Path,
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert words in error_of(arguments, monkeypatch, capsys)
    assert not (world / "runs").exists()


def test_without_ray_tune_the_error_says_what_to_install(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "evoswarm.tune.run", None)
    assert "pip install 'evoswarm[tune]'" in error_of(("tune.yaml",), monkeypatch, capsys)
