"""Ray's private API, its wait calls and the hiding of GPUs are each used in one module only."""

from __future__ import annotations

from pathlib import Path

import pytest

import evoswarm

PACKAGE = Path(evoswarm.__file__).parent


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("private.py", ("ray._private", "_do_request")),
        ("wait.py", ("ray.wait(",)),
        ("scheduling.py", ("CUDA_VISIBLE_DEVICES",)),
    ],
)
def test_a_mechanism_of_ray_is_in_one_module(module: str, words: tuple[str, ...]) -> None:
    users = {path for path in PACKAGE.rglob("*.py") if any(word in path.read_text() for word in words)}
    assert users == {PACKAGE / "backend/ray" / module}


def test_signals_are_handled_in_one_module() -> None:
    users = {path for path in PACKAGE.rglob("*.py") if "signal.signal(" in path.read_text()}
    assert users == {PACKAGE / "launch/signals.py"}
