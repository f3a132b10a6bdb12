"""What is said about a token that is missing or wrong, and what Ray publishes about lost workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evoswarm.backend.ray.private import _Errors
from evoswarm.launch.connect import token_problem

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs a token, but none was sent"),
        ({"RAY_AUTH_MODE": "TOKEN"}, "needs a token, but none was sent"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=disabled sends none; unset it"),
        ({"RAY_AUTH_MODE": ""}, "RAY_AUTH_MODE= sends none; unset it"),
        ({"RAY_AUTH_TOKEN": "x"}, "does not accept the token in RAY_AUTH_TOKEN"),
        (
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/no/token"},
            "the file /no/token (RAY_AUTH_TOKEN_PATH) is missing",
        ),
    ],
)
def test_what_is_wrong_with_the_token_is_one_line_that_names_the_places_for_it(
    given: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    text = token_problem()
    assert words in text and "\n" not in text
    assert all(place in text for place in ("RAY_AUTH_TOKEN,", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"))


class Published:
    """Stands for Ray's subscriber to errors."""

    def __init__(self, *errors: dict[str, Any]) -> None:
        self._errors = list(errors)

    def subscribe(self) -> None:
        pass

    def poll(self) -> tuple[bytes, dict[str, Any] | None]:
        return b"", self._errors.pop(0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["worker_died", "ACTOR_DIED", "ACTOR_UNAVAILABLE", "NODE_DIED", "WORKER_DIED"])
def test_what_ray_publishes_about_lost_workers_is_not_printed(kind: str) -> None:
    assert _Errors(Published({"type": kind, "error_message": "A worker died\nLease ID: 1"})).poll()[1] is None


def test_other_errors_that_ray_publishes_are_one_line() -> None:
    error = _Errors(Published({"type": "other", "error_message": "\nno disk\nsecond line"})).poll()[1]
    assert error is not None and error["error_message"] == "no disk"
