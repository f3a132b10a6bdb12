"""Runs the command line in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evoswarm.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """call("run", "it.yaml") returns exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["evoswarm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def error_of(call: Call) -> Callable[..., str]:
    """Runs a command that must fail with status 2 and one error line; returns the line."""

    def run(*arguments: str) -> str:
        status, _, error = call(*arguments)
        assert (status, error.count("\n")) == (2, 1), error
        assert error.startswith("error: ")
        return error

    return run
