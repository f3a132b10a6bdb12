"""`evoswarm compare` on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from echo import make_world


def evoswarm(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evoswarm", "compare", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    config = make_world(tmp_path, validation=30, test=20)
    del config["search"], config["seed"]
    config["compare"] = {"seeds": [0, 1], "budget": 30}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_a_subset_of_methods_gives_the_same_json_again(world: Path) -> None:
    arguments = ("compare.yaml", "--methods", "best_expert, cma_es", "--json")
    first, second = evoswarm(*arguments, folder=world), evoswarm(*arguments, folder=world)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert [line["method"] for line in summary["targets"]["target"]["lines"]] == ["best_expert", "cma_es"]
    assert second.stdout == first.stdout


def test_the_output_names_the_files_and_the_methods_left_out(world: Path) -> None:
    done = evoswarm("compare.yaml", "--set", "compare.budget=45", "--set", "compare.seeds=[0]", folder=world)
    assert done.returncode == 0, done.stderr
    assert "greedy_soup" in done.stdout and "compare.html" in done.stdout
    assert "cbtm is left out: it needs the training data of every expert" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either a config or --toy"),
        (("compare.yaml", "--toy"), "give either a config or --toy"),
        (("none.yaml",), "none.yaml: cannot be read"),
        (("compare.yaml", "--methods", "tize"), "tize is unknown; did you mean ties?"),
        (("compare.yaml", "--targets", "office"), "--targets office: unknown target; choose from target"),
        (("compare.yaml", "--set", "compare.budget=1"), "compare: budget"),
        (("compare.yaml", "--set", "compare.budget=7"), "too small for"),
    ],
)
def test_mistakes_give_one_error_line_and_status_2(
    world: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., str]
) -> None:
    monkeypatch.chdir(world)
    assert words in error_of("compare", *arguments)


@pytest.mark.slow
def test_measurements_survive_a_kill(world: Path) -> None:
    options = ["--set", "engine.delay=0.02", "--json", "--methods", "greedy_soup,random_search"]
    command = [sys.executable, "-m", "evoswarm", "compare", "compare.yaml", *options]
    process = subprocess.Popen(command, cwd=world, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    measured = world / "runs" / "echo" / "target" / "measured" / "validation"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(measured.glob("*.json"))) < 4:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in measured.glob("*.json")}
    assert len(before) >= 4
    assert evoswarm("compare.yaml", *options, folder=world).returncode == 0
    after = {path.name: path.stat().st_mtime_ns for path in measured.glob("*.json")}
    assert before.items() <= after.items() and len(after) > len(before)


@pytest.mark.slow
def test_a_utility_of_several_models_and_roles_is_the_same_in_a_comparison_and_in_a_run(world: Path) -> None:
    task = {"type": "exact_match", "data": {"path": "echo.json", "limit": 20}}
    data = {"path": "echo.json", "validation": "test", "test": "dev", "test_limit": 20}
    other = {"type": "exact_match", "data": data}
    utility = {"type": "multi_task", "tasks": {"a": task, "b": other, "chooser": task}, "combine": "weighted_sum"}
    utility |= {"select_on": "chooser", "penalty": {"flips": 0.5, "against": "e2"}, "normalize": "experts"}
    config = yaml.safe_load((world / "compare.yaml").read_text()) | {"utility": utility}
    config["compare"] = {"seeds": [0], "budget": 30, "methods": ["base", "best_expert", "ties", "random_search"]}
    (world / "several.yaml").write_text(yaml.safe_dump(config | {"name": "several"}))
    done = evoswarm("several.yaml", "--json", folder=world)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    lines = {line["method"]: line for line in summary["targets"]["target"]["lines"]}
    assert summary["failed"] == {} and set(lines) == {"base", "best_expert", "ties", "random_search"}
    del config["compare"]
    (world / "run.yaml").write_text(yaml.safe_dump(config | {"name": "run", "search": {"type": "random_search"}}))
    command = [sys.executable, "-m", "evoswarm", "run", "run.yaml", "--json"]
    ran = json.loads(subprocess.run(command, cwd=world, capture_output=True, text=True, timeout=300, check=True).stdout)
    for method, found in ("base", ran["base"]), ("best_expert", ran["initial"]):
        assert lines[method]["utility"]["mean"] == pytest.approx(found["test"])
        assert lines[method]["validation"] == pytest.approx(found["validation"])
