"""Hosts of one machine: network namespaces with their own addresses."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from evoswarm.errors import UserError

END_SECONDS = 10


class Hosts:
    """Network namespaces connected by one bridge, which is also in a namespace: the host's network does not change."""

    def __init__(self) -> None:
        self._prefix, self._names = f"evs{os.getpid()}", ["switch"]
        self._pods: list[Callable[[], subprocess.Popen[bytes]]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self.space("switch"))
        _ip("-n", self.space("switch"), "link", "add", "switch", "type", "bridge")
        _ip("-n", self.space("switch"), "link", "set", "switch", "up")

    def add(self, name: str) -> str:
        """Add a host and return its address."""
        space, switch, number = self.space(name), self.space("switch"), len(self._names)
        address, port = f"10.77.0.{number}", f"port{number}"
        self._names.append(name)
        _ip("netns", "add", space)
        _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
        _ip("-n", switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        return address

    def command(self, name: str, *command: str) -> list[str]:
        """The command line that runs a command on a host."""
        return ["ip", "netns", "exec", self.space(name), *command]

    def link(self, name: str, *, up: bool) -> None:
        """Connect or disconnect a host."""
        port = f"port{self._names.index(name)}"
        _ip("-n", self.space("switch"), "link", "set", port, "up" if up else "down")

    def space(self, name: str) -> str:
        """The network namespace of a host."""
        return f"{self._prefix}-{name}"

    def start(self, command: Sequence[str], *, env: dict[str, str], log: Path) -> None:
        """Start the process of a pod; see `command`."""

        def launch() -> subprocess.Popen[bytes]:
            with log.open("ab") as file:
                return subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)

        self._pods.append(launch)
        self.processes.append(launch())

    def revive(self) -> None:
        """Restart exited processes, as the kubelet does: Ray gives up if a busy machine starts it too slowly."""
        for i, process in enumerate(self.processes):
            if process.poll() is not None:
                self.processes[i] = self._pods[i]()

    def close(self) -> None:
        """Terminate the pods as the kubelet does, the head last; kill what is left; remove the namespaces."""
        for group in (self.processes[1:], self.processes[:1]):
            for process in group:
                process.terminate()
            deadline = time.monotonic() + END_SECONDS
            for process in group:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))
        spaces = [self.space(name) for name in self._names]
        while pids := [int(pid) for space in spaces for pid in _ip("netns", "pids", space).split()]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        for process in self.processes:
            process.wait()
        for space in reversed(spaces):
            _ip("netns", "delete", space)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"ip {' '.join(arguments)}: {done.stderr.strip()}; this needs root and network namespaces")
    return done.stdout
