"""Runs as jobs of a real cluster: they end as at home, and leave nothing behind however they end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest
from echo import echo_config, result_bytes
from head import Head

import evoswarm
from evoswarm.config import RunConfig, dump_config
from evoswarm.loop.directory import read_lines

SEARCH = "search={type: model_swarms, population: 4, max_generations: 5}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes that every run below must end with."""
    config = echo_config(tmp_path_factory.mktemp("whole"), SEARCH, "name=whole")
    evoswarm.run(config)
    return result_bytes(config.run_dir)


def write(tmp_path: Path, name: str, *overrides: str) -> tuple[RunConfig, Path]:
    """A config of a run that takes some seconds, and its file."""
    defaults = ("engine.delay=0.1", "backend={type: ray, scorers: 2}")
    config = echo_config(tmp_path, SEARCH, f"name={name}", *defaults, *overrides)
    file = tmp_path / f"{name}.yaml"
    file.write_text(dump_config(config))
    return config, file


def ended(head: Head, job: str) -> str:
    """Wait for the end of a job; its state."""
    head.until(lambda: head.status(job) in ("SUCCEEDED", "STOPPED", "FAILED"), f"{job} has ended")
    head.until(lambda: head.actors() == [], f"the actors of {job} are gone: {head.actors()}")
    return str(head.json("status", job)["state"])


@pytest.mark.slow
def test_several_jobs_share_a_cluster_one_stops_and_the_others_end_like_local_runs(
    head: Head, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    runs = {name: write(tmp_path, name, "engine.delay=0.3") for name in ("left", "right")}
    slow = write(tmp_path, "slow", "engine.delay=0.6")
    jobs = {name: head.json("submit", file)["job"] for name, (_, file) in ({"slow": slow} | runs).items()}
    head.until(lambda: {name.split(":")[1] for name in head.actors() if ":" in name} == set(jobs), "all three are on")
    head.until(lambda: len(read_lines(slow[0].run_dir / "generations.jsonl")) > 0, "the slow run is on its way")
    state = head.json("stop", jobs["slow"])
    assert state["state"] == "stopped" and state["generation"] is not None and state["generations"] == 5
    assert read_lines(slow[0].run_dir / "generations.jsonl")[-1]["generation"] >= state["generation"] >= 0
    for name, (config, _) in runs.items():
        followed = head.evoswarm("logs", jobs[name], "--follow")
        assert followed.returncode == 0 and followed.stdout.count("generation ") >= 5
        assert result_bytes(config.run_dir) == undisturbed
        said = head.json("status", jobs[name])
        assert said["state"] == "finished" and said["generation"] == 5 and said["examples_per_second"] > 0
        of_directory = head.json("status", config.run_dir)
        assert of_directory["state"] == "finished" and of_directory["best"] == said["best"]
    again = head.json("submit", slow[1])["job"]
    assert ended(head, again) == "finished"
    assert result_bytes(slow[0].run_dir) == undisturbed
    states = {entry["job"]: entry["state"] for entry in head.json("list")}
    assert states == {jobs["left"]: "finished", jobs["right"]: "finished", jobs["slow"]: "stopped", again: "finished"}


@pytest.mark.slow
def test_a_job_whose_driver_is_killed_leaves_no_actor_and_continues_when_submitted_again(
    head: Head, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    config, file = write(tmp_path, "killed", "engine.delay=0.3")
    job = head.json("submit", file)["job"]
    head.until(lambda: len(read_lines(config.run_dir / "generations.jsonl")) > 1, "generation 1 is on record")
    held = json.loads((config.run_dir / "lock").read_text())
    assert head.evoswarm("status", config.run_dir).stdout.startswith(f"{config.run_dir}: running, generation ")
    psutil.Process(held["driver"]).send_signal(signal.SIGKILL)
    assert ended(head, job) == "failed"
    assert head.json("status", config.run_dir)["state"] == "stopped"
    assert ended(head, head.json("submit", file)["job"]) == "finished"
    assert result_bytes(config.run_dir) == undisturbed


@pytest.mark.slow
def test_a_job_that_fails_says_why_and_leaves_no_actor(head: Head, tmp_path: Path) -> None:
    _, file = write(tmp_path, "fails", "engine={type: transformers}", "model=/no/such/model")
    job = head.json("submit", file)["job"]
    assert ended(head, job) == "failed"
    log = head.evoswarm("logs", job).stdout
    assert log.strip().splitlines()[-1].startswith("error: /no/such/model: no such folder")
    said = head.json("status", job)
    assert said["state"] == "failed" and said["error"] == log.strip().splitlines()[-1].removeprefix("error: ")
    assert head.evoswarm("status", job).stdout.strip().endswith(f"failed ({said['error']})")


def test_what_travels_is_the_config_alone(head: Head, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(b"\0" * 3_000_000)
    config, file = write(tmp_path, "small")
    planted = "planted-secret-0123456789"
    done = head.evoswarm("submit", file, "--json", MY_API_TOKEN=planted)
    job = json.loads(done.stdout)["job"]
    details = head.get(f"/api/jobs/{job}")
    assert details["metadata"] == {"evoswarm": "small", "run_dir": str(config.run_dir)}
    assert set(details["runtime_env"]) == {"working_dir", "env_vars"}
    package = details["runtime_env"]["working_dir"].removeprefix("gcs://")
    assert ended(head, job) == "finished"
    folders = list(
        head.folder.glob(f"session_latest/runtime_resources/working_dir_files/{package.removesuffix('.zip')}")
    )
    assert [path.name for folder in folders for path in folder.iterdir()] == ["config.yaml"]
    everywhere = [json.dumps(details), head.evoswarm("logs", job).stdout]
    everywhere += [path.read_text(errors="replace") for path in config.run_dir.rglob("*") if path.is_file()]
    assert not any(secret in text for text in everywhere for secret in (planted, head.token))


@pytest.mark.slow
def test_every_command_finds_the_token_in_the_home_folder(
    head: Head, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(head.token + "\n")
    env = {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": "", "HOME": str(tmp_path)}
    _, file = write(tmp_path, "home")
    submitted = head.evoswarm("submit", file, "--json", **env)
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)["job"]
    for command in (["logs", job, "--follow"], ["logs", job], ["status", job], ["stop", job], ["list"]):
        done = head.evoswarm(*command, **env)
        assert done.returncode == 0 and done.stdout and "Token authentication" not in done.stdout + done.stderr, done
    config, file = write(tmp_path, "joined")
    joined = head.evoswarm("run", file, "--set", f"backend.address={head.address}", **env)
    assert joined.returncode == 0, joined.stderr
    assert result_bytes(config.run_dir) == undisturbed
