"""The benchmarks of installing and of the GPU run on a CPU with tiny shapes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import install
from benchmarks.gpu import __main__ as gpu


def test_every_part_of_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--output", str(output)])
    gpu.main()
    figures = json.loads(output.read_text())
    assert set(figures) == {"machine", *gpu.PARTS}
    assert not [part for part in gpu.PARTS if "error" in figures[part]]
    assert figures["moving"]["same bytes"] and figures["moving"]["same bytes with noise"]
    engine = figures["engine"]["no cap"]
    assert engine["same after every return"] and engine["all different"] and figures["engine"]["same answers in all"]
    assert figures["run"]["evaluations"] >= 4


def test_a_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    figures = gpu.timed(lambda stage: {"x": 1 // 0}, gpu.Stage(tmp_path, tiny=True))
    assert figures["error"][-1] == "ZeroDivisionError: integer division or modulo by zero"


def test_the_install_benchmark_ends_with_its_ratio(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["install", "--tiny"])
    install.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["name"] == "install" and all(row["as float64"] > 0.99 for row in last["rows"])
