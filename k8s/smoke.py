"""Run a RayJob from k8s/ without Kubernetes: each pod becomes a host with its own address on this machine.

    python -m k8s.smoke                      # overlays/cpu-smoke, in the root of the checkout
    python -m k8s.smoke k8s/overlays/NAME    # or a rendered file
    python -m k8s.smoke --image IMAGE        # each pod is a container of this image, see docker/build.py

A host is a network namespace. Every pod runs the `ray start` command that KubeRay would build, with token
authentication. The submitter runs the same `ray job submit`. A failed job is retried on a new cluster up to
`backoffLimit` times. Not covered: network policies, and the operator itself.

Without an image, pods are processes of this machine: volumes become folders, and their mount paths are replaced in the
entrypoint and the config, and so is the path of the image's toy world. With an image, pods are containers of podman,
with the user, capabilities, volumes and limits of CPU and memory of the manifest. The environment variable PODMAN
replaces the command `podman`.

Needs root and iproute2. Stops its processes and removes its namespaces at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.launch.k8s.manifest import read_manifest
from evoswarm.launch.k8s.quantity import quantity
from k8s.hosts import Hosts
from k8s.pods import Containers, Pods, Processes, volumes, write_config_maps

HERE = Path(__file__).parent
START_SECONDS = 180
ALIVE = """
import json, os, sys, urllib.request
request = urllib.request.Request(sys.argv[1] + "/nodes?view=summary")
request.add_header("Authorization", "Bearer " + os.environ["RAY_AUTH_TOKEN"])
nodes = json.load(urllib.request.urlopen(request, timeout=5))["data"]["summary"]
print(sum(node["raylet"].get("state") == "ALIVE" for node in nodes))
"""


def ray_start(group: dict[str, Any], pods: Pods, *, head: str | None, address: str, temp: Path) -> list[str]:
    """The `ray start` command that KubeRay builds for a group, plus the pod's address."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    params = {
        "num-cpus": limits["cpu"],
        "memory": str(int(quantity(limits["memory"]))),
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": "52365",
    }
    if gpus := [number for name, number in limits.items() if name.endswith("gpu")]:
        params["num-gpus"] = gpus[0]
    params |= group.get("rayStartParams") or {}
    params |= {"address": f"{head}:6379"} if head else {}
    params = pods.ray_start(params | {"node-ip-address": address}, temp)
    kind = [] if head else ["--head"]
    return ["ray", "start", *kind, *(f"--{name}={value}" for name, value in params.items()), "--block"]


def run_once(job: dict[str, Any], pods: Pods, root: Path, *, attempt: int) -> str:
    """Start one cluster, submit the job once and return its final status."""
    cluster, hosts = job["spec"]["rayClusterSpec"], Hosts()

    def start(name: str, group: dict[str, Any], head: str | None) -> str:
        address = hosts.add(name)
        words = ray_start(group, pods, head=head, address=address, temp=root / f"{name}-{attempt}")
        print(f"{name}:", shlex.join(words), flush=True)
        command = pods.command(hosts, name, group["template"]["spec"], words)
        hosts.start(command, env=pods.environment, log=root / f"{name}.log")
        return address

    try:
        head = start("head", cluster["headGroupSpec"], None)
        hosts.add("submitter")
        _wait(hosts, head, pods, root, nodes=1)
        workers = [group for group in cluster["workerGroupSpecs"] for _ in range(group["replicas"])]
        for number, group in enumerate(workers, 1):
            start(f"w{number}", group, head)
        _wait(hosts, head, pods, root, nodes=1 + len(workers))
        return _submit(hosts, job, pods, f"http://{head}:8265", attempt)
    finally:
        hosts.close()
        pods.close()


def _wait(hosts: Hosts, head: str, pods: Pods, root: Path, *, nodes: int) -> None:
    """Wait until `nodes` nodes are alive. Queries the head over the network with the token, as the operator does."""
    command = hosts.command("submitter", sys.executable, "-c", ALIVE, f"http://{head}:8265")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        done = subprocess.run(command, env=pods.environment, capture_output=True, text=True)
        if done.stdout.strip() == str(nodes):
            return
        hosts.revive()
        time.sleep(1)
    logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in sorted(root.glob("*.log")))
    raise UserError(f"{nodes} nodes did not come up; {done.stderr.strip()[-500:]}\n{logs}")


def _submit(hosts: Hosts, job: dict[str, Any], pods: Pods, url: str, attempt: int) -> str:
    name, env = f"{job['metadata']['name']}-{attempt}", pods.environment
    submit = ["ray", "job", "submit", "--address", url, "--submission-id", name, "--no-wait", "--"]
    submit += shlex.split(pods.here(job["spec"]["entrypoint"]))
    print("submitter:", shlex.join(submit), flush=True)
    pod = job["spec"]["submitterPodTemplate"]["spec"]
    follow = ["ray", "job", "logs", "--address", url, "--follow", name]
    subprocess.run(pods.command(hosts, "submitter", pod, submit), env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(pods.command(hosts, "submitter", pod, follow), env=env)
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
    parser.add_argument("--image", help="run each pod as a container of this image")
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
        place = arguments.keep or root / "volumes"
        place.mkdir(parents=True, exist_ok=True)
        folders, image = volumes(place.resolve(), jobs[0]), arguments.image
        pods: Pods = Containers(image, jobs[0], folders, root) if image else Processes(jobs[0], folders)
        write_config_maps(jobs[0], objects, folders, pods)
        for attempt in range(jobs[0]["spec"].get("backoffLimit", 0) + 1):
            status = run_once(jobs[0], pods, root, attempt=attempt)
            print(json.dumps({"attempt": attempt, "status": status}), flush=True)
            if status == "SUCCEEDED":
                return 0
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
