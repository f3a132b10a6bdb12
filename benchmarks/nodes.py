"""A multi-node Ray cluster of real processes on this machine; its nodes can be killed and disconnected.

If this machine allows it (root and iproute2), every node is a network namespace with its own address. Otherwise the
nodes share the machine's address, as in `ray.cluster_utils`, and cannot be disconnected. Each name is one host: a
killed node can be restarted under its name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from evoswarm.errors import UserError
from evoswarm.launch.connect import TASK_RECORDS
from k8s.hosts import Hosts

PATIENCE_SECONDS = 120
STARTED, ATTEMPTS = "Ray runtime started", 6
"""Start attempts per node: Ray gives up on a node after 30 s, which is sometimes too short on a busy machine."""
MARK = "EVOSWARM_BENCHMARK_NODE"
"""Environment variable that every process of a node inherits."""
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
"""Ray needs about a minute to declare a silent node or head dead; these settings reduce it to about 15 s."""


class Nodes:
    """A context manager. On exit, it stops every process that it started and removes the namespaces."""

    def __init__(self, *, namespaces: bool | None = None) -> None:
        """Use network namespaces, or nodes of one host; default: namespaces where this machine allows them."""
        self._folder = Path(tempfile.mkdtemp(prefix="evn", dir="/tmp"))  # short path: Ray creates sockets in it  # nosec
        self._hosts = Hosts() if (namespaces_allowed() if namespaces is None else namespaces) else None
        self._addresses: dict[str, str] = {}
        self._commands: dict[str, tuple[list[str], Path]] = {}
        self._raylets: dict[str, subprocess.Popen[Any]] = {}
        self._started: list[subprocess.Popen[Any]] = []
        self._severed: set[str] = set()
        self._label, self._port = f"{os.getpid()}-{secrets.token_hex(4)}", 0
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        root = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        own = {"PATH": path, "PYTHONPATH": root, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        self.environment = kept | own | token | HEALTH | dict([TASK_RECORDS])
        self.head = ""

    @property
    def names(self) -> list[str]:
        """All hosts so far."""
        return list(self._addresses)

    @property
    def kind(self) -> str:
        """The kind of node, for reports."""
        return "network namespaces" if self._hosts else "nodes of one host"

    @property
    def address(self) -> str:
        """The address of the most recently started head."""
        return f"{self._addresses[self.head]}:{self._port}"

    def __enter__(self) -> Nodes:
        self._before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("terminated"))  # runs the cleanup
        return self

    def __exit__(self, *exception: object) -> None:
        for name in self._addresses:
            self.kill(name)
        for process in self._started:
            process.wait()
        if self._hosts:
            self._hosts.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, self._before)

    def start_all(self, head: str, workers: Sequence[str], *, cpus: int) -> None:
        """Start a new cluster and wait until all nodes are up."""
        self.start(head, head=True)
        self.wait(head)
        for name in workers:  # one after the other: see ATTEMPTS
            self.start(name, cpus=cpus)
            self.wait(name)

    def start(self, name: str, *, cpus: int = 0, head: bool = False) -> None:
        """Start a node as the head of a new cluster or as a worker of the current one; see `wait`."""
        if name not in self._addresses:
            self._addresses[name] = self._hosts.add(name) if self._hosts else "127.0.0.1"
        if head:
            self.head, self._port = name, 6379 if self._hosts else free_port()
        temp = self._folder / f"{name}-{len(self._started)}"
        options = {
            "node-ip-address": self._addresses[name],
            "num-cpus": cpus,
            "object-store-memory": 100_000_000,
            "temp-dir": temp,
            "metrics-export-port": 8080 if self._hosts else free_port(),
            "dashboard-agent-listen-port": 52365 if self._hosts else free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
            "include-log-monitor": "false",
        }
        options |= {"port": self._port, "include-dashboard": "false"} if head else {"address": self.address}
        words = ["--head", "--no-monitor"] if head else []
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block"]
        command += [f"--{key}={value}" for key, value in options.items()]
        self._commands[name] = command, temp.with_suffix(".log")
        self._launch(name)

    def _launch(self, name: str) -> None:
        command, log = self._commands[name]
        with log.open("wb") as file:
            self._raylets[name] = self.run(name, *command, stdout=file, stderr=file)

    def wait(self, name: str) -> None:
        """Wait until a node is up.

        Raises:
            UserError: the node does not start.
        """
        log = self._commands[name][1]
        for attempt in range(ATTEMPTS):
            if attempt:
                self._launch(name)
            wait_until(
                lambda: self._raylets[name].poll() is not None or STARTED in log.read_text(), what=f"{name} is up"
            )
            if self._raylets[name].poll() is None:
                return
        raise UserError(f"{name} did not start: {log.read_text()[-2000:]}")

    def revive(self, name: str) -> None:
        """Restart a node that has ended or was cut off, with its original command, and wait until it is up.

        A node that was cut off may end a while after its network has healed, when Ray tells it that it was given up.
        """
        if name in self._severed:
            self.cut_off(name, heal=True)
            self._severed.remove(name)
            self.kill(name)
        if self._raylets[name].poll() is not None or not self.processes(name, "raylet"):
            self.kill(name)
            self._launch(name)
        self.wait(name)

    def run(self, name: str, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a process on a node's host, in its own session, with RAY_ADDRESS set to the cluster."""
        words = self._hosts.command(name, *command) if self._hosts else list(command)
        environment = self.environment | {MARK: self._mark(name), "RAY_ADDRESS": self.address}
        process = subprocess.Popen(words, env=environment, start_new_session=True, **options)
        self._started.append(process)
        return process

    def processes(self, name: str, title: str = "") -> list[psutil.Process]:
        """The processes of a node whose command line starts with `title` or whose program has that name."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark(name) and process.status() != psutil.STATUS_ZOMBIE:
                    line = process.cmdline()
                    if line and (line[0].startswith(title) or Path(line[0]).name == title):
                        found.append(process)
        return found

    def kill(self, name: str, title: str = "") -> int:
        """kill -9 of a node's processes, all of them or those with a title; returns how many there were."""
        killed = 0
        while found := self.processes(name, title):
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            killed += len(found)
            psutil.wait_procs(found, timeout=5)
            if title:
                break
        return killed

    def cut_off(self, name: str, *, heal: bool = False) -> None:
        """Pull the cable between a node and all others, or plug it in again."""
        assert self._hosts is not None, "nodes of one host cannot be cut off"
        self._severed.add(name)
        self._hosts.link(name, up=heal)

    def _mark(self, name: str) -> str:
        return f"{self._label}-{name}"


def namespaces_allowed() -> bool:
    """Whether this machine allows network namespaces."""
    if os.geteuid() or not shutil.which("ip"):
        return False
    name = f"evotry{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    return made and subprocess.run(["ip", "netns", "delete", name], capture_output=True).returncode == 0


def free_port() -> int:
    """A currently unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition.

    Raises:
        UserError: the wait timed out.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise UserError(f"timed out after {seconds:g} s waiting until {what}")
        time.sleep(0.1)
