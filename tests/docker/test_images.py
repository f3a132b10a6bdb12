"""The Docker files pass the linter, agree with the project's versions, and prove.py runs the same commands."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import hcl2
import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
TEXT = DOCKERFILE.read_text()


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docker/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_hadolint_finds_nothing() -> None:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hadolint = shutil.which("hadolint", path=search)
    assert hadolint is not None
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout


DOCKERFILE_OF_TWO_BUILDS = """
ARG BUILD=cpu
FROM python:3.11 AS base
ENV A=1
# a comment
RUN first \\
    step
FROM base AS deps-cpu
RUN only cpu
FROM base AS deps-gpu
ENV A=2
RUN only gpu
FROM deps-${BUILD} AS evoswarm
WORKDIR /app
COPY --from=unused /x /y
RUN last step
"""


@pytest.mark.parametrize("build, value", [("cpu", "1"), ("gpu", "2")])
def test_prove_runs_the_steps_of_one_build_in_order_with_their_environment(build: str, value: str) -> None:
    steps = [step for step in load("prove").plan(DOCKERFILE_OF_TWO_BUILDS, build) if step.word == "RUN"]
    assert [step.text for step in steps] == ["first step", f"only {build}", "last step"]
    assert [step.env["A"] for step in steps] == ["1", value, value]
    assert steps[-1].folder == "/app"


def test_the_gpu_constraints_override_the_common_ones(tmp_path: Path) -> None:
    (step,) = [step for step in load("prove").plan(TEXT, "gpu") if "> all.txt" in step.text]
    shutil.copy(ROOT / "docker/constraints-gpu.txt", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    subprocess.run(["/bin/sh", "-c", step.text], cwd=tmp_path, check=True)
    lines = [line for line in (tmp_path / "all.txt").read_text().splitlines() if "==" in line]
    names = [line.split("==")[0].lower().replace("_", "-") for line in lines]
    assert len(set(names)) == len(names)
    gpu = [line for line in (ROOT / "docker/constraints-gpu.txt").read_text().splitlines() if "==" in line]
    assert gpu and set(gpu) <= set(lines) and any(line.startswith("ray==") for line in lines)


def test_the_tags_name_the_evoswarm_and_ray_versions_and_the_build() -> None:
    bake = hcl2.loads((ROOT / "docker/docker-bake.hcl").read_text())
    plain = {key.strip('"'): value for item in bake["variable"] for key, value in item.items()}
    defaults = {name: value["default"].strip('"') for name, value in plain.items()}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (ray,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert (defaults["VERSION"], defaults["RAY"]) == (version, ray)
    targets = {key.strip('"'): value for item in bake["target"] for key, value in item.items()}
    for build in ("cpu", "gpu"):
        assert targets[build]["tags"][0].strip('"') == "${REGISTRY}evoswarm:${VERSION}-ray${RAY}-" + build
        assert targets[build]["args"]["BUILD"].strip('"') == build
    assert (ROOT / targets["base"]["dockerfile"].strip('"')) == DOCKERFILE


@pytest.mark.parametrize("answer, expected", [(b"success", True), (b"Raylet is not here", False)])
def test_the_health_check_reports_the_raylets_health(answer: bytes, expected: bool) -> None:
    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/local_raylet_healthz" else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    healthy = load("healthcheck").healthy
    assert healthy(server.server_port) is expected
    server.shutdown()
    server.server_close()
    assert healthy(server.server_port) is False
