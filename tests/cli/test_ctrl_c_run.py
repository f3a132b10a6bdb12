"""Ctrl-C in the middle of a local run: it ends soon, and a resumed run has the bytes of one that was not stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from training_helpers import wait_for

from evoswarm.toy.config import target_config

FILES = ("generations.jsonl", "best/adapter_model.safetensors", "recipe.json")


@pytest.mark.slow
def test_an_interrupted_local_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    data = target_config("letters", algorithm="model_swarms") | {"name": "whole", "backend": {"type": "local"}}
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": 12}
    data["search"] |= {"population": 4, "max_generations": 5}
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(data))
    evoswarm = [sys.executable, "-m", "evoswarm"]
    subprocess.run([*evoswarm, "run", "it.yaml"], cwd=tmp_path, check=True, capture_output=True)
    command = [*evoswarm, "run", "it.yaml", "--set", "name=stopped"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "runs/stopped/generations.jsonl").exists)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == f"stopped; resume with: evoswarm resume {tmp_path}/runs/stopped"
    assert not (tmp_path / "runs/stopped/summary.json").exists()
    subprocess.run([*evoswarm, "resume", "runs/stopped"], cwd=tmp_path, check=True, capture_output=True)
    for name in FILES:
        assert (tmp_path / "runs/stopped" / name).read_bytes() == (tmp_path / "runs/whole" / name).read_bytes()
