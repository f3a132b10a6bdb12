"""Run a RayJob from k8s/ without Kubernetes: each pod becomes a network namespace on this machine.

    python k8s/smoke.py                      # overlays/cpu-smoke
    python k8s/smoke.py k8s/overlays/NAME    # or a rendered file

Every pod gets its own address and runs the `ray start` command that KubeRay would build, with token authentication. The
submitter's namespace runs the same `ray job submit`. A failed job is retried on a new cluster up to `backoffLimit`
times. Not covered: images, memory and CPU limits, network policies, and the operator itself. Volumes become folders:
their mount paths are replaced in the entrypoint and the config, and so is the path of the image's toy world.

Needs root and iproute2. Stops its processes and removes its namespaces at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.launch.k8s.manifest import read_manifest
from evoswarm.toy import world

HERE = Path(__file__).parent
TOY = "/opt/evoswarm/toy"
START_SECONDS, END_SECONDS = 180, 10
ALIVE = """
import json, os, sys, urllib.request
request = urllib.request.Request(sys.argv[1] + "/nodes?view=summary")
request.add_header("Authorization", "Bearer " + os.environ["RAY_AUTH_TOKEN"])
nodes = json.load(urllib.request.urlopen(request, timeout=5))["data"]["summary"]
print(sum(node["raylet"].get("state") == "ALIVE" for node in nodes))
"""


class Hosts:
    """Network namespaces connected by one bridge, which is also in a namespace: the host's network does not change."""

    def __init__(self) -> None:
        self._prefix, self._names = f"evs{os.getpid()}", ["switch"]
        self._pods: list[Callable[[], subprocess.Popen[bytes]]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self._full("switch"))
        _ip("-n", self._full("switch"), "link", "add", "switch", "type", "bridge")
        _ip("-n", self._full("switch"), "link", "set", "switch", "up")

    def _full(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def add(self, name: str) -> str:
        """Add a host and return its address."""
        space, switch, number = self._full(name), self._full("switch"), len(self._names)
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
        return ["ip", "netns", "exec", self._full(name), *command]

    def link(self, name: str, *, up: bool) -> None:
        """Connect or disconnect a host."""
        port = f"port{self._names.index(name)}"
        _ip("-n", self._full("switch"), "link", "set", port, "up" if up else "down")

    def start(self, name: str, *command: str, env: dict[str, str], log: Path) -> None:
        """Start a pod's process."""

        def launch() -> subprocess.Popen[bytes]:
            with log.open("ab") as file:
                return subprocess.Popen(
                    self.command(name, *command), env=env, stdout=file, stderr=file, start_new_session=True
                )

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
        spaces = [self._full(name) for name in self._names]
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


class Folders:
    """The local folders that replace the pods' volumes."""

    def __init__(self, root: Path, job: dict[str, Any], objects: list[dict[str, Any]]) -> None:
        pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        self.paths = {TOY: str(world())}
        for volume in pod["volumes"]:
            folder = root / volume["name"]
            if "configMap" in volume or "persistentVolumeClaim" in volume:
                folder.mkdir(exist_ok=True)
                self.paths[paths[volume["name"]]] = str(folder)
            for item in objects:
                if item["kind"] == "ConfigMap" and item["metadata"]["name"] == volume.get("configMap", {}).get("name"):
                    for name, text in item["data"].items():
                        (folder / name).write_text(self.here(text), encoding="utf-8")

    def here(self, text: str) -> str:
        """Replace the mount paths in a text."""
        for path, folder in self.paths.items():
            text = text.replace(path, folder)
        return text


def ray_start(group: dict[str, Any], *, head: str | None, address: str, temp: Path) -> list[str]:
    """The `ray start` command that KubeRay builds for a group, plus the pod's address and its own /tmp/ray."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    params = {
        "num-cpus": limits["cpu"],
        "memory": str(_bytes(limits["memory"])),
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": "52365",
    }
    if gpus := [number for name, number in limits.items() if name.endswith("gpu")]:
        params["num-gpus"] = gpus[0]
    params |= group.get("rayStartParams") or {}
    params |= {"address": f"{head}:6379"} if head else {}
    params |= {"node-ip-address": address, "temp-dir": str(temp)}
    kind = [] if head else ["--head"]
    return ["ray", "start", *kind, *(f"--{name}={value}" for name, value in params.items()), "--block"]


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1 << 20, "Gi": 1 << 30}[quantity[-2:]]


def run_once(job: dict[str, Any], folders: Folders, root: Path, *, attempt: int) -> str:
    """Start one cluster, submit the job once and return its final status."""
    cluster, hosts = job["spec"]["rayClusterSpec"], Hosts()
    env = _environment(cluster, folders)
    try:
        head = hosts.add("head")
        command = ray_start(cluster["headGroupSpec"], head=None, address=head, temp=root / f"h{attempt}")
        print("head:", shlex.join(command), flush=True)
        hosts.start("head", *command, env=env, log=root / "head.log")
        hosts.add("submitter")
        _wait(hosts, head, env, root, nodes=1)
        nodes = 1
        for group in cluster["workerGroupSpecs"]:
            for _ in range(group["replicas"]):
                name = f"worker{nodes}"
                temp = root / f"w{attempt}{nodes}"
                command = ray_start(group, head=head, address=hosts.add(name), temp=temp)
                print(f"{name}:", shlex.join(command), flush=True)
                hosts.start(name, *command, env=env, log=root / f"{name}.log")
                nodes += 1
        _wait(hosts, head, env, root, nodes=nodes)
        return _submit(hosts, job, folders.here(job["spec"]["entrypoint"]), f"http://{head}:8265", env, attempt)
    finally:
        hosts.close()


def _environment(cluster: dict[str, Any], folders: Folders) -> dict[str, str]:
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    declared = {item["name"]: folders.here(item["value"]) for item in container.get("env", []) if "value" in item}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # authOptions: {mode: token}
    return kept | own | declared | (auth if cluster.get("authOptions", {}).get("mode") == "token" else {})


def _wait(hosts: Hosts, head: str, env: dict[str, str], root: Path, *, nodes: int) -> None:
    """Wait until `nodes` nodes are alive. Queries the head over the network with the token, as the operator does."""
    command = hosts.command("submitter", sys.executable, "-c", ALIVE, f"http://{head}:8265")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.stdout.strip() == str(nodes):
            return
        hosts.revive()
        time.sleep(1)
    logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in sorted(root.glob("*.log")))
    raise UserError(f"{nodes} nodes did not come up; {done.stderr.strip()[-500:]}\n{logs}")


def _submit(hosts: Hosts, job: dict[str, Any], entrypoint: str, url: str, env: dict[str, str], attempt: int) -> str:
    name, address = f"{job['metadata']['name']}-{attempt}", ["--address", url]
    submit = ["ray", "job", "submit", *address, "--submission-id", name, "--no-wait", "--", *shlex.split(entrypoint)]
    print("submitter:", shlex.join(submit), flush=True)
    subprocess.run(hosts.command("submitter", *submit), env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(hosts.command("submitter", "ray", "job", "logs", *address, "--follow", name), env=env)
    code = (
        "import sys; from ray.job_submission import JobSubmissionClient as C; "
        "print(C(sys.argv[1]).get_job_status(sys.argv[2]).value)"
    )
    command = hosts.command("submitter", sys.executable, "-c", code, url, name)
    for _ in range(20):
        status = subprocess.run(command, env=env, capture_output=True, text=True).stdout.strip()
        if status in ("SUCCEEDED", "FAILED", "STOPPED"):
            return status
        time.sleep(1)
    return "UNKNOWN"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", nargs="?", default=str(HERE / "overlays/cpu-smoke"), help="folder or rendered file")
    parser.add_argument("--keep", type=Path, help="keep the volumes in this folder")
    arguments = parser.parse_args()
    objects = read_manifest(arguments.manifest)
    jobs = [item for item in objects if item["kind"] == "RayJob"]
    if not jobs:
        raise UserError(f"{arguments.manifest}: contains no RayJob")
    if os.geteuid() or not shutil.which("ip"):
        raise UserError("network namespaces need root and the `ip` program (package iproute2)")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("terminated"))  # runs the cleanup
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard))  # as in KubeRay's ulimit -n
    with tempfile.TemporaryDirectory(prefix="evs-", dir="/tmp") as temporary:  # nosec
        root = Path(temporary)
        volumes = arguments.keep or root / "volumes"
        volumes.mkdir(parents=True, exist_ok=True)
        folders = Folders(volumes.resolve(), jobs[0], objects)
        for attempt in range(jobs[0]["spec"].get("backoffLimit", 0) + 1):
            status = run_once(jobs[0], folders, root, attempt=attempt)
            print(json.dumps({"attempt": attempt, "status": status}), flush=True)
            if status == "SUCCEEDED":
                return 0
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
