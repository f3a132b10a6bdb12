"""The smoke overlay for real: head, workers and submitter in network namespaces, with a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from echo import result_bytes
from k8s_helpers import PATH, ROOT, Object, objects

import evoswarm
from benchmarks.nodes import namespaces_allowed
from evoswarm.config.load import apply_overrides, parse_config
from k8s.pods import Containers, Processes, volumes, write_config_maps
from k8s.smoke import ray_start


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


class Space:
    """Stands for the hosts: knows the names of their namespaces."""

    def space(self, name: str) -> str:
        return f"evs1-{name}"

    def command(self, name: str, *command: str) -> list[str]:
        return ["on", name, *command]


def smoke_job() -> tuple[Object, list[Object]]:
    items = objects("overlays/cpu-smoke")
    return next(item for item in items if item["kind"] == "RayJob"), items


def test_a_process_finds_the_volumes_and_the_toy_world_of_its_pod_in_folders(tmp_path: Path) -> None:
    job, items = smoke_job()
    folders = volumes(tmp_path, job)
    pods = Processes(job, folders)
    write_config_maps(job, items, folders, pods)
    config = yaml.safe_load((tmp_path / "run/run.yaml").read_text())
    assert config["output"] == f"{tmp_path}/data/runs" and Path(config["model"]).is_dir()
    assert pods.here(job["spec"]["entrypoint"]).split()[4] == f"{tmp_path}/run/run.yaml"
    assert pods.environment["HF_HOME"] == f"{tmp_path}/data/hub" and len(pods.environment["RAY_AUTH_TOKEN"]) == 64
    start = ray_start(job["spec"]["rayClusterSpec"]["headGroupSpec"], pods, head=None, address="a", temp=tmp_path)
    assert {"--head", "--num-cpus=0", "--num-gpus=0", f"--temp-dir={tmp_path}", "--block"} <= set(start)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to the user of the pod")
def test_a_container_has_the_user_limits_and_volumes_of_its_pod(tmp_path: Path) -> None:
    job, items = smoke_job()
    folders = volumes(tmp_path, job)
    pods = Containers("image:1", job, folders, tmp_path)
    write_config_maps(job, items, folders, pods)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    command = pods.command(Space(), "w1", group["template"]["spec"], ["ray", "start"])
    assert command[-5:-1] == ["image:1", "/bin/bash", "-c", "--"] and command[-1].endswith("exec ray start")
    assert {
        "--network=ns:/run/netns/evs1-w1",
        "--user=1000:1000",
        "--security-opt=no-new-privileges",
        "--cap-drop=ALL",
        f"--memory={3 << 30}b",
        "--cpus=1",
        f"--shm-size={256 << 20}b",
        f"--volume={tmp_path}/data:/data",
        f"--volume={tmp_path}/run:/etc/evoswarm:ro",
        "--env=HF_HUB_OFFLINE=1",
        "--env=RAY_AUTH_MODE=token",
    } <= set(command)
    assert (tmp_path / "data").stat().st_uid == 1000
    assert "/opt/evoswarm/toy/base" in (tmp_path / "run/run.yaml").read_text()


def test_a_manifest_without_a_job_gives_one_error_line(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(yaml.safe_dump_all(objects("overlays/service")))
    done = smoke(tmp_path / "service.yaml")
    assert done.returncode == 1 and done.stderr == f"error: {tmp_path}/service.yaml: contains no RayJob\n"
