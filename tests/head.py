"""Starts a Ray head with dashboard, token and fixed ports in separate processes, and commands that use it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 300
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass
class Head:
    """A running head: its addresses, and the environment for processes that use it."""

    folder: Path
    address: str
    dashboard: str
    metrics: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text()

    def evoswarm(self, *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run an evoswarm command with the dashboard's address in its environment."""
        command = [sys.executable, "-m", "evoswarm", *map(str, arguments)]
        environment = {key: value for key, value in (self.environment | changes).items() if value}
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env=environment)

    def json(self, *arguments: object) -> Any:
        """The output of an evoswarm command with --json."""
        done = self.evoswarm(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def get(self, path: str) -> Any:
        """Query the dashboard."""
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def actors(self) -> list[str]:
        """Names of the live actors, without Ray's job supervisors."""
        found = self.get("/api/v0/actors?detail=1&limit=1000&timeout=20")["data"]["result"]["result"]
        return [
            a["name"] or a["class_name"] for a in found if a["state"] != "DEAD" and a["class_name"] != "JobSupervisor"
        ]

    def status(self, job: str) -> str:
        """Ray's status of a job; faster than `evoswarm status`."""
        return str(self.get(f"/api/jobs/{job}")["status"])

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None, "the head has ended:\n" + (self.folder / "head.log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"timed out waiting until {what}"
            time.sleep(0.3)


def free_port() -> int:
    """A currently unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


FAKE_HEAD = "f" * 51 + "00000"
"""The head's id in Ray's provider of fake nodes."""


def _autoscaler(folder: Path, port: int, kinds: dict[str, Any], cpus: int) -> dict[str, str]:
    """Write autoscaler.json, which starts more raylets on this machine as nodes. Returns the head's environment."""
    head = {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "fake",
        "max_workers": 8,
        "upscaling_speed": 8,
        "idle_timeout_minutes": 10,
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": head, **kinds},
        "auth": {},
        **{f"{kind}setup_commands": [] for kind in ("", "head_", "worker_")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
        **{"file_mounts": {}, "cluster_synced_files": [], "initialization_commands": [], "docker": {}},
        "provider": {
            "type": "external",  # the provider's built-in name requires a file that is missing in Ray's wheel
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,  # no installation on the nodes over SSH
            "disable_launch_config_check": True,
            "head_node_id": FAKE_HEAD,
            "launch_multiple": True,
            "gcs_address": f"127.0.0.1:{port}",
        },
    }
    (folder / "autoscaler.json").write_text(json.dumps(config))
    return {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD,
    }


@contextlib.contextmanager
def ray_head(*, cpus: int = 8, kinds: dict[str, Any] | None = None) -> Iterator[Head]:
    """Start a head. On exit, stop its process group and nothing else.

    Args:
        cpus: the head's CPUs.
        kinds: start no dashboard, but an autoscaler (v2) that adds nodes of these kinds; see
            `available_node_types` of `ray up`.
    """
    with tempfile.TemporaryDirectory(prefix="evo") as name:  # short path: Ray creates sockets in it
        folder = Path(name)
        (folder / "token").write_text(secrets.token_hex(32))
        port, dashboard, metrics = free_port(), free_port(), free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_TMPDIR": str(folder),
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
            "HF_HUB_OFFLINE": "1",
        }
        options = {
            "port": port,
            "node-ip-address": "127.0.0.1",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": free_port(),
            "metrics-export-port": metrics,
            "num-cpus": cpus,
            "object-store-memory": 200_000_000,
            "temp-dir": folder,
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{key}={value}" for key, value in options.items()]
        own = environment
        if kinds is not None:
            own = environment | _autoscaler(folder, port, kinds, cpus)
            command += [f"--autoscaling-config={folder / 'autoscaler.json'}", "--include-dashboard=false"]
        with (folder / "head.log").open("wb") as log:
            process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)
        head = Head(folder, "", f"http://127.0.0.1:{dashboard}", metrics, environment, process)
        try:
            head.until(lambda: _is_up(head, dashboard=kinds is None), "the head is up")
            head.address = _address(folder / "head.log")
            yield head
        finally:
            _stop(process)


def _is_up(head: Head, *, dashboard: bool) -> bool:
    try:
        up = bool(_address(head.folder / "head.log"))
        return up and (not dashboard or isinstance(head.get("/api/jobs/"), list))
    except OSError:
        return False


def _address(log: Path) -> str:
    """The head's host:port as it prints it; Ray replaces loopback by another address of the machine."""
    return log.read_text().partition("ray start --address='")[2].partition("'")[0]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the head: first with SIGTERM, then kill what is left of its process group."""
    import psutil

    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        psutil.wait_procs(family, timeout=5)
        for child in family:
            with contextlib.suppress(psutil.Error):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)
