"""start-head.sh and start-worker.sh start a two-node cluster on this machine, with token authentication."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from echo import make_world

ROOT = Path(__file__).parents[2]
OWN_PORTS = ("object-manager", "node-manager", "runtime-env-agent", "metrics-export")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """Nodes started with the scripts, and queries to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, folder / "auth/token"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = kept | {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN_PATH": str(self.token)}
        self.port, self.dashboard, self._client = free_ports(3)
        self.agents: list[int] = []
        self._commands: list[list[str]] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, *arguments: str) -> None:
        """Start a node."""
        ports = free_ports(6)
        own = [f"--{name}-port={port}" for name, port in zip(OWN_PORTS, ports[:4], strict=True)]
        self.agents.append(ports[4])
        own += [f"--dashboard-agent-listen-port={ports[4]}", f"--dashboard-agent-grpc-port={ports[5]}"]
        own += [f"--temp-dir={self.folder / str(len(self._processes))}", "--object-store-memory=100000000"]
        self._commands.append([str(ROOT / "cluster" / script), *arguments, "--node-ip-address=127.0.0.1", *own])
        self._processes.append(self._launch(len(self._processes)))

    def _launch(self, number: int) -> subprocess.Popen[bytes]:
        with (self.folder / f"{number}.log").open("ab") as file:
            command = self._commands[number]
            return subprocess.Popen(command, env=self.env, stdout=file, stderr=file, start_new_session=True)

    def start_head(self) -> None:
        own = [f"--port={self.port}", f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={self._client}"]
        self.start("start-head.sh", *own)

    def ask(self, path: str, token: str | None) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.dashboard}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def alive(self) -> int:
        status, text = self.ask("/nodes?view=summary", self.token.read_text() if self.token.exists() else "")
        nodes = json.loads(text)["data"]["summary"] if status == 200 else []
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def wait(self, nodes: int) -> None:
        """Wait until `nodes` nodes are alive. Restart nodes that exceeded Ray's 30 s limit on a busy machine."""
        deadline = time.monotonic() + 200
        while self.alive() != nodes:
            logs = "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))
            assert time.monotonic() < deadline, logs
            for number, process in enumerate(self._processes):
                if process.poll() is not None:
                    self._processes[number] = self._launch(number)
            time.sleep(1)

    def close(self) -> None:
        for process in reversed(self._processes):  # the head last: workers disconnect from it
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head, and a worker with two CPUs."""
    folder = Path(tempfile.mkdtemp(prefix="evc", dir="/tmp"))  # short path: Ray creates sockets in it
    cluster = Cluster(folder)
    try:
        cluster.start_head()
        cluster.wait(1)
        cluster.start("start-worker.sh", f"127.0.0.1:{cluster.port}", "--num-cpus=2")
        cluster.wait(2)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_head_creates_a_token_that_only_its_user_can_read(nodes: Cluster) -> None:
    assert nodes.token.stat().st_mode & 0o777 == 0o600
    assert len(nodes.token.read_text()) == 64


def test_requests_without_the_token_are_rejected(nodes: Cluster) -> None:
    assert nodes.ask("/api/jobs/", None)[0] == 401
    assert nodes.ask("/api/jobs/", "0" * 64)[0] in (401, 403)
    assert nodes.ask("/api/jobs/", nodes.token.read_text())[0] == 200


def test_the_dashboard_listens_only_on_loopback(nodes: Cluster) -> None:
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert [a for a in listening if a.endswith(f":{nodes.dashboard:04X}")] == [f"0100007F:{nodes.dashboard:04X}"]


def test_the_image_health_check_queries_the_raylet(nodes: Cluster) -> None:
    def check(port: int) -> int:
        return subprocess.run([sys.executable, ROOT / "docker/healthcheck.py", str(port)], timeout=60).returncode

    assert check(nodes.agents[1]) == 0
    assert check(free_ports(1)[0]) == 1


def test_a_submitted_run_finishes_on_the_worker(nodes: Cluster, tmp_path: Path) -> None:
    make_world(tmp_path)
    address = ["--address", f"http://127.0.0.1:{nodes.dashboard}"]
    run = ["python", "-m", "evoswarm", "run", f"{tmp_path}/it.yaml", "--set", "backend={type: ray, address: auto}"]
    settings = ["--runtime-env", str(ROOT / "cluster/runtime_env.yaml")]
    env = nodes.env | {"RAY_AUTH_MODE": "token"}
    command = ["ray", "job", "submit", *address, *settings, "--", *run]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "starting 7 particles without GPU (weights in host memory), 2 scorers" in done.stdout
    assert json.loads((tmp_path / "runs/echo/summary.json").read_text())["generations"] == 4


def test_a_worker_without_head_or_token_reports_what_is_missing(tmp_path: Path) -> None:
    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
        command = [str(ROOT / "cluster/start-worker.sh"), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)

    assert start().returncode == 2 and "usage:" in start().stderr and "usage:" in start("--num-cpus=1").stderr
    done = start("127.0.0.1")
    assert done.returncode == 2
    assert done.stderr == f"error: no token in {tmp_path}/none; copy the file from the head\n"
