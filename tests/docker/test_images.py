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


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hadolint = shutil.which("hadolint", path=search)
    assert hadolint is not None
    return subprocess.run([hadolint, path], capture_output=True, text=True)


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    done = lint(DOCKERFILE)
    assert done.returncode == 0 and not done.stdout, done.stdout
    (tmp_path / "Dockerfile").write_text(TEXT.replace("--no-install-recommends ", ""))
    assert "DL3015" in lint(tmp_path / "Dockerfile").stdout


@pytest.mark.parametrize("build", ["cpu", "gpu"])
def test_prove_runs_every_install_command_of_the_dockerfile(build: str) -> None:
    steps = [step for step in load("prove").plan(TEXT, build) if step.word == "RUN"]
    joined = re.sub(r"\s+", " ", TEXT.replace("\\\n", " "))
    assert all(step.text in joined for step in steps)
    plain = re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ")
    per_stage = dict(re.findall(r"FROM \S+ AS (\S+)\n(.*?)(?=FROM |\Z)", plain, flags=re.DOTALL))
    other = "gpu" if build == "cpu" else "cpu"
    of_build = [text for name, text in per_stage.items() if name == "runtime-cpu" or not name.endswith(other)]
    assert len(steps) == sum(text.count("RUN ") for text in of_build) == (6 if build == "cpu" else 8)
    commands = " ".join(step.text for step in steps)
    assert ("vllm" in commands) == (build == "gpu")
    assert re.search(r"pip install (\$TORCH_ARGS )?torch", commands).start() < commands.index(
        "pip install -r requirements.txt"
    )


@pytest.mark.parametrize("build, name", [("cpu", "constraints.txt"), ("gpu", "all.txt")])
def test_every_install_uses_the_constraints(build: str, name: str) -> None:
    for step in load("prove").plan(TEXT, build):
        if step.word == "RUN" and re.search(r"pip install (?!--no-cache-dir --no-deps)", step.text):
            assert step.env["PIP_CONSTRAINT"] == f"/src/{name}"


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


def test_the_build_context_contains_only_what_is_copied() -> None:
    lines = (ROOT / "docker/Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    copied = {
        name for text in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, flags=re.MULTILINE) for name in text.split()
    }
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_a_plain_user_without_an_entrypoint() -> None:
    final = load("prove").stages(TEXT, "gpu")["evoswarm"]
    words = dict(final.steps)
    assert words["USER"] == "1000:1000" and "ENTRYPOINT" not in words and "HEALTHCHECK" in words
    assert any(word == "ENV" and "RAY_AUTH_MODE=token" in text for word, text in final.steps)
    assert "--uid 1000" in TEXT and "/etc/profile.d/evoswarm.sh" in TEXT
    (outside,) = {stage.parent for stage in load("prove").stages(TEXT, "cpu").values() if ":" in stage.parent}
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", outside)


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
