"""The smoke overlay for real: head, workers and submitter in network namespaces, with a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from echo import result_bytes
from k8s_helpers import PATH, ROOT, objects

import evoswarm
from benchmarks.nodes import namespaces_allowed
from evoswarm.config.load import apply_overrides, parse_config


def namespaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith("evs")]


def smoke(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k8s.smoke", *arguments]
    env = os.environ | {"PATH": PATH, "PYTHONPATH": str(ROOT)}
    return subprocess.run(list(map(str, command)), cwd="/", env=env, capture_output=True, text=True, timeout=550)


@pytest.mark.skipif(not namespaces_allowed(), reason="needs root and network namespaces")
def test_the_smoke_job_on_three_hosts_gives_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    before = namespaces()
    done = smoke("--keep", tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert '"status": "SUCCEEDED"' in done.stdout
    assert "ray start --head --num-cpus=0" in done.stdout and "w2: ray start" in done.stdout
    assert namespaces() == before
    alone = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    config = apply_overrides(alone, [f"output={tmp_path}/alone", "backend={type: local}"])
    evoswarm.run(parse_config(config, root=tmp_path))
    assert result_bytes(tmp_path / "data/runs/smoke") == result_bytes(tmp_path / "alone/smoke")


def test_a_manifest_without_a_job_gives_one_error_line(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(yaml.safe_dump_all(objects("overlays/service")))
    done = smoke(tmp_path / "service.yaml")
    assert done.returncode == 1 and done.stderr == f"error: {tmp_path}/service.yaml: contains no RayJob\n"
