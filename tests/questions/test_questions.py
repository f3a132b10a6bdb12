"""Runs each research question for real on a few examples of the toy world."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest


def ask_question(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, *, budget: int, targets: str
) -> dict[str, Any]:
    """Run `python -m examples.NAME` and return its JSON."""
    options = ["--seeds", "1", "--budget", str(budget), "--limit", "8", "--output", str(folder)]
    monkeypatch.setattr(sys, "argv", [name, *options, "--targets", *targets.split()])
    importlib.import_module(f"examples.{name}").main()
    place = folder / f"{name}-{budget}"
    assert (place / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    found: dict[str, Any] = json.loads((place / f"{name}.json").read_text())
    return found


def test_diversity_uses_a_pool_of_ten_in_each_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask_question(monkeypatch, tmp_path, "diversity", budget=20, targets="office")
    lines = {line["distinct x copies"]: line for line in found["lines"]}
    assert list(lines) == ["1x10", "2x5", "5x2", "10x1"]
    assert lines["1x10"]["evolved"] == lines["1x10"]["best expert"]  # mixes of equal experts are that expert
    pools = {
        name: json.loads((tmp_path / f"diversity-20/office-{name}-0/inputs.json").read_text())["pool"] for name in lines
    }
    assert {name: (len(pool), len(set(pool.values()))) for name, pool in pools.items()} == {
        "1x10": (10, 1),
        "2x5": (10, 2),
        "5x2": (10, 5),
        "10x1": (10, 10),
    }


@pytest.mark.slow
def test_dropout_saves_evaluations_in_the_same_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ask_question(monkeypatch, tmp_path, "dropout", budget=40, targets="office")["lines"]
    assert lines[0]["dropout"] == "K 0, N 0" and lines[0]["evaluations"] == 40 and lines[0]["examples"] == 1
    assert lines[-1]["dropout"] == "K 0.8, N 0.8" and lines[-1]["evaluations"] < 30
    assert len(lines) == 6


@pytest.mark.slow
def test_randomness_ablates_each_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ask_question(monkeypatch, tmp_path, "randomness", budget=40, targets="office")["lines"]
    assert [line["random factors"] for line in lines][::5] == ["as published", "none of them"] and len(lines) == 6
    config = (tmp_path / "randomness-40/office-none-of-them-0/config.yaml").read_text()
    assert all(part in config for part in ("velocity: zero", "weight_randomness: false", "population: 10"))


@pytest.mark.slow
def test_larger_populations_cost_more_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ask_question(monkeypatch, tmp_path, "population", budget=20, targets="office")["lines"]
    assert [(line["population"], line["evaluations"]) for line in lines] == [
        ("10", 20),
        ("20", 40),
        ("30", 60),
        ("40", 80),
    ]
    assert lines[0]["validation by 20"] == lines[0]["validation"] and lines[3]["validation by 20"] is None


@pytest.mark.slow
def test_zero_shot_measures_transfer_to_unseen_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask_question(monkeypatch, tmp_path, "zero_shot", budget=20, targets="office letters")
    assert [line["evolved on > tested on"] for line in found["lines"]] == ["office > letters", "letters > office"]
    line = found["lines"][0]
    assert line["over base"]["mean"] == pytest.approx(line["evolved"]["mean"] - line["base"]["mean"])
    measured = {path.name for path in (tmp_path / "zero_shot-20/measured").iterdir()}
    assert "letters-base.json" in measured and "letters-office-0-best.json" in measured
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "zero_shot-20").rglob("summary.json")}
    assert ask_question(monkeypatch, tmp_path, "zero_shot", budget=20, targets="office letters") == found
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_multi_task_compares_joint_and_separate_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask_question(monkeypatch, tmp_path, "multi_task", budget=20, targets="office letters")
    names = [line["expert"] for line in found["lines"]]
    assert names == ["base", "evolved on office", "evolved on letters", "evolved on office + letters"]
    both = found["lines"][-1]
    assert both["mean"]["mean"] == pytest.approx((both["office"]["mean"] + both["letters"]["mean"]) / 2)
