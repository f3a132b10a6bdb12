"""Base models by their name on the hub. Nothing here reaches a network."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from evoswarm.errors import UserError
from evoswarm.weights.hub import hub_unreachable, model_folder


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert model_folder(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("name", ["./models/gemma", "/models/gemma", "models/of/mine"])
def test_a_path_without_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no such folder; give the base model's folder or its name on the hub"):
        model_folder(name)


@pytest.mark.parametrize("weights", [False, True])
def test_a_name_without_a_network_is_refused_at_once_with_what_to_do(weights: bool) -> None:
    with pytest.raises(UserError, match=r"the hub cannot be reached \(no route\).*hf download nobody/has-this"):
        model_folder("nobody/has-this", weights=weights, unreachable=lambda: "no route")


def test_a_cached_model_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789012345678901234567890123456789"
    folder = tmp_path / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_folder("some/model", unreachable=lambda: "no route") == str(folder / "snapshots" / commit)


def test_a_name_that_the_hub_does_not_allow_is_refused() -> None:
    with pytest.raises(UserError, match="no such folder, and not a name on the hub"):
        model_folder("two words", unreachable=lambda: "no route")


def test_whether_the_hub_answers_is_known_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    hub_unreachable.cache_clear()
    start = time.monotonic()
    reason = hub_unreachable()
    hub_unreachable.cache_clear()
    assert reason and time.monotonic() - start < 30
