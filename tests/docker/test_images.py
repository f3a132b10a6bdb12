"""The Docker files pass the linter and agree with the project's versions."""

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


def test_the_container_runtime_decides_which_gpus_a_container_sees() -> None:
    assert not re.search(r"NVIDIA_VISIBLE_DEVICES\s*=", TEXT)


def test_the_script_builds_on_the_base_image_of_the_dockerfile_and_tags_it_like_bake() -> None:
    build = load("build")
    assert build.base_image(TEXT) == "python:3.11.14-slim-bookworm"
    assert build.debian(build.base_image(TEXT)) == "bookworm"
    assert f"image: {build.tag()}\n" in (ROOT / "k8s/base/rayjob.yaml").read_text()


@pytest.mark.parametrize("missing", ["buildah", "debootstrap"])
def test_the_script_says_which_program_it_needs(tmp_path: Path, missing: str) -> None:
    for name in {"buildah", "debootstrap"} - {missing}:
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    command = [sys.executable, ROOT / "docker/build.py"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == f"error: {missing} not found; install Debian's packages of these names\n"


def test_the_gpu_constraints_override_the_common_ones(tmp_path: Path) -> None:
    (step,) = re.findall(r"^RUN (.+ > all\.txt)$", TEXT, flags=re.MULTILINE)
    shutil.copy(ROOT / "docker/constraints-gpu.txt", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    subprocess.run(["/bin/sh", "-c", step], cwd=tmp_path, check=True)
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
