"""Whole tunings under Ray Tune."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml
from echo import make_world, result_bytes

import evoswarm
from evoswarm.cli.tune import show
from evoswarm.config import load_config
from evoswarm.config.run import LocalBackend
from evoswarm.config.tune import TuneConfig, load_tune, parse_tune
from evoswarm.errors import UserError
from evoswarm.loop.directory import read_lines
from evoswarm.tune.run import tune
from evoswarm.tune.space import Trial, make_trials

PATIENCE_SECONDS = 240
STILL, MOVING = 1e-6, 0.75
"""Step lengths: a particle that hardly moves finds nothing."""
JUDGES = """
def fair(example, response):
    return float(example["answer"] == response)


def broken(example, response):
    raise RuntimeError("no judge today")
"""
SPACE = {
    "utility.function": {"grid": ["tune_judge:fair", "tune_judge:broken"]},
    "search.step_length": {"grid": [STILL, MOVING]},
    "search.inertia": {"uniform": [0.1, 0.5]},
}


def config_of(folder: Path, **section: Any) -> TuneConfig:
    if not (folder / "experts").exists():
        make_world(folder, validation=500, test=100)
        (folder / "tune_judge.py").write_text(JUDGES)
    data = yaml.safe_load((folder / "it.yaml").read_text())
    data["pool"]["experts"] = [f"experts/e{number}" for number in (0, 2, 4, 5)]  # none of them is perfect
    data["utility"] = {"type": "custom", "function": "tune_judge:fair", "data": "echo.json"}
    data["search"] = {"type": "model_swarms", "population": 4, "max_generations": 6, "min_step_length": 0}
    return parse_tune(data | {"backend": {"type": "ray"}, "tune": section}, root=folder)


def elsewhere(trial: Trial, folder: Path) -> dict[str, bytes]:
    """The bytes of the same search as an ordinary run."""
    run = trial.run.with_(output=folder)
    evoswarm.run(run)
    return result_bytes(run.run_dir)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> tuple[TuneConfig, dict[str, Any]]:
    config = config_of(tmp_path_factory.mktemp("tune"), trials=1, space=SPACE, concurrent=1)
    return config, tune(config)


def test_every_trial_is_a_whole_search_as_it_would_be_alone(done, tmp_path: Path) -> None:
    config, summary = done
    trials = make_trials(config)
    assert [line["values"] for line in summary["trials"]] == [trial.values for trial in trials]
    for trial in trials[:2]:
        assert result_bytes(trial.run.run_dir) == elsewhere(trial, tmp_path)


def test_a_trial_that_cannot_continue_is_distinguished_and_the_others_end(done) -> None:
    config, summary = done
    assert [line["state"] for line in summary["trials"]] == ["finished", "finished", "failed", "failed"]
    assert [("no judge today" in line["error"]) for line in summary["trials"][2:]] == [True, True]
    assert "- trial 2: " in (config.run.run_dir / "tune.md").read_text()


def test_the_best_on_validation_is_chosen_and_its_config_gives_it_again(done) -> None:
    config, summary = done
    best = summary["best"]
    assert best["trial"] == 1 and best["validation"] > summary["trials"][0]["validation"]
    assert all(
        json.loads((Path(line["run_dir"]) / "summary.json").read_text())["best"]["test"] is None
        for line in summary["trials"][:2]
    )
    chosen = load_config(best["config"])
    assert (chosen.name, chosen.run_dir.parent) == ("echo-best", config.run.run_dir.parent)
    found = evoswarm.run(chosen.with_(backend=LocalBackend()))
    assert (found["best"]["validation"], found["best"]["test"]) == (best["validation"], best["test"])


def test_the_table_ranks_the_trials(done, capsys: pytest.CaptureFixture[str]) -> None:
    config, summary = done
    show(summary)
    shown = capsys.readouterr().out
    assert f"best on validation: trial 1, {summary['best']['validation']:.4f}, test " in shown
    assert f"evoswarm run {summary['best']['config']}" in shown
    lines = [
        line.split(" | ") for line in (config.run.run_dir / "tune.md").read_text().splitlines() if "finished" in line
    ]
    assert lines[0][0] == f"| {summary['best']['trial']}"
    assert [float(line[4]) for line in lines] == sorted((float(line[4]) for line in lines), reverse=True)


def written(folder: Path) -> dict[Path, int]:
    """Every file but the lock, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_finished_tuning_is_read_and_another_one_in_its_place_is_refused(done) -> None:
    config, summary = done
    before = written(config.run.run_dir)
    assert tune(config) == summary
    assert written(config.run.run_dir) == before
    folder = config.run.run_dir.parents[1]
    with pytest.raises(UserError, match="has other trials or another scheduler.*another `name`"):
        tune(config_of(folder, trials=2, space=SPACE))


def test_where_ray_tune_has_lost_its_state_the_trials_are_still_there(done) -> None:
    config, summary = done
    (config.run.run_dir / "tune.json").unlink()
    for file in (config.run.run_dir / "state").glob("*.*"):
        file.write_bytes(file.read_bytes()[:100])
    again = tune(config)
    assert (again["best"], again["trials"][:2]) == (summary["best"], summary["trials"][:2])
    assert [line["state"] for line in again["trials"][2:]] == ["failed", "failed"]  # these were tried again


def test_asha_stops_the_worse_at_a_rung_and_what_it_stopped_can_resume(tmp_path: Path, cluster: None) -> None:
    config = config_of(
        tmp_path,
        space={"search.step_length": {"grid": [MOVING, STILL]}},
        trials=1,
        scheduler="asha",
        grace=3,
        reduction=2,
        concurrent=1,
    )
    summary = tune(config)
    first, second = summary["trials"]
    assert (first["state"], first["generations"]) == ("finished", 6)
    assert second["state"] == "stopped" and 3 <= second["generations"] < 6
    assert summary["best"]["trial"] == 0
    trials = make_trials(config)
    assert evoswarm.run(trials[1].run, resume="must")["generations"] == 6


def start(file: Path) -> subprocess.Popen[str]:
    """`evoswarm tune` as a driver of its own on this session's cluster."""
    command = [sys.executable, "-m", "evoswarm", "tune", str(file), "--json"]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


def kill_worker() -> None:
    """kill -9 of the trial that is under way; workers are descendants of the process that has started the cluster."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::ImplicitFunc"):
                child.send_signal(signal.SIGKILL)
                return
    raise AssertionError("no trial is under way")


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_lose_nothing(tmp_path: Path, cluster: None) -> None:
    make_world(tmp_path, validation=60, test=30)
    data = yaml.safe_load((tmp_path / "it.yaml").read_text())
    data["search"] = {"type": "model_swarms", "population": 3, "max_generations": 8, "patience": 8}
    data |= {"engine": {"type": "fake", "batch_size": 20, "delay": 0.05}, "backend": {"type": "ray"}}
    data["tune"] = {"space": {"seed": {"grid": [1, 2, 3]}}, "trials": 1, "concurrent": 1}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(data))
    trials = make_trials(load_tune(tmp_path / "tune.yaml"))

    def generations(number: int) -> int:
        return len(read_lines(trials[number].run.run_dir / "generations.jsonl"))

    process = start(tmp_path / "tune.yaml")
    try:
        until(process, lambda: generations(0) > 2)
        kill_worker()
        until(process, lambda: generations(1) > 2)
        finished = (trials[0].run.run_dir / "summary.json").stat().st_mtime_ns
    finally:
        process.kill()
        process.communicate()
    assert generations(1) < 9 and generations(2) == 0
    process = start(tmp_path / "tune.yaml")
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert [line["state"] for line in json.loads(out)["trials"]] == ["finished"] * 3
    assert (trials[0].run.run_dir / "summary.json").stat().st_mtime_ns == finished
    for trial in trials:
        quick = trial.run.with_(output=tmp_path / "quick")
        evoswarm.run(quick)
        assert result_bytes(trial.run.run_dir) == result_bytes(quick.run_dir)
