"""Runs the pods of a manifest: as processes of this machine, or as containers of their image."""

from __future__ import annotations

import os
import resource
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from evoswarm.launch.k8s.quantity import quantity
from evoswarm.toy import world
from k8s.hosts import Hosts

Object = dict[str, Any]
TOY = "/opt/evoswarm/toy"
PODMAN = shlex.split(os.environ.get("PODMAN", "podman"))
"""The command of podman with its options, for example `podman --runtime runc`."""
PROCESSES = 16384
"""Most processes and threads of the user of a container."""


class Pods(Protocol):
    """How pods run. `environment` is that of a process of this machine that talks to the cluster."""

    environment: dict[str, str]

    def here(self, text: str) -> str:
        """An entrypoint or a config with the paths that it has in these pods."""

    def ray_start(self, options: dict[str, str], temp: Path) -> dict[str, str]:
        """The options of `ray start` for a pod; `temp` is a folder of this machine for Ray's files."""

    def command(self, hosts: Hosts, host: str, pod: Object, words: list[str]) -> list[str]:
        """The command of this machine that runs a pod's command on a host."""

    def close(self) -> None:
        """Remove what is left of the pods."""


def volumes(root: Path, job: Object) -> dict[str, Path]:
    """Folders for the ConfigMaps and the claims of a RayJob, by the name of the volume."""
    every = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    found = {v["name"]: root / v["name"] for v in every if "configMap" in v or "persistentVolumeClaim" in v}
    for folder in found.values():
        folder.mkdir(exist_ok=True)
    return found


def write_config_maps(job: Object, objects: list[Object], folders: dict[str, Path], pods: Pods) -> None:
    """Write the files of the ConfigMaps into the folders of their volumes."""
    every = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    names = {v["configMap"]["name"]: folders[v["name"]] for v in every if "configMap" in v}
    for item in objects:
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] in names:
            for name, text in item["data"].items():
                (names[item["metadata"]["name"]] / name).write_text(pods.here(text), encoding="utf-8")


def _environment(cluster: Object) -> dict[str, str]:
    """What the manifest and KubeRay put into the environment of a Ray pod."""
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    declared = {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # authOptions: {mode: token}
    return declared | (auth if cluster.get("authOptions", {}).get("mode") == "token" else {})


class Processes:
    """Processes of this machine. Mount paths become folders, and the path of the image's toy world is replaced too."""

    def __init__(self, job: Object, folders: dict[str, Path]) -> None:
        cluster = job["spec"]["rayClusterSpec"]
        mounts = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        self._paths = {m["mountPath"]: str(folders[m["name"]]) for m in mounts if m["name"] in folders}
        self._paths[TOY] = str(world())
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        declared = {name: self.here(value) for name, value in _environment(cluster).items()}
        self.environment = kept | own | declared

    def here(self, text: str) -> str:
        """See `Pods`."""
        for path, folder in self._paths.items():
            text = text.replace(path, folder)
        return text

    def ray_start(self, options: dict[str, str], temp: Path) -> dict[str, str]:
        """See `Pods`."""
        return options | {"temp-dir": str(temp)}

    def command(self, hosts: Hosts, host: str, pod: Object, words: list[str]) -> list[str]:
        """See `Pods`."""
        return hosts.command(host, *words)

    def close(self) -> None:
        """See `Pods`."""


class Containers:
    """Containers, with the user, limits, volumes and capabilities of the manifest."""

    def __init__(self, image: str, job: Object, folders: dict[str, Path], root: Path) -> None:
        self._image, self._folders, self._root = image, folders, root
        self._own = _environment(job["spec"]["rayClusterSpec"])
        self._names: list[str] = []
        self.environment = dict(os.environ) | self._own

    def here(self, text: str) -> str:
        """See `Pods`."""
        return text

    def ray_start(self, options: dict[str, str], temp: Path) -> dict[str, str]:
        """See `Pods`."""
        return options

    def command(self, hosts: Hosts, host: str, pod: Object, words: list[str]) -> list[str]:
        """See `Pods`."""
        (container,), user = pod["containers"], pod["securityContext"]
        limits, space = container["resources"]["limits"], hosts.space(host)
        name = f"{space}-{len(self._names)}"
        self._names.append(name)
        options = [f"--name={name}", "--replace", "--rm", f"--network=ns:/run/netns/{space}", f"--hostname={host}"]
        options += [f"--user={user['runAsUser']}:{user['runAsGroup']}", "--security-opt=no-new-privileges"]
        options += [f"--cap-drop={name}" for name in container["securityContext"]["capabilities"]["drop"]]
        memory = int(quantity(limits["memory"]))
        options += [f"--memory={memory}b", f"--memory-swap={memory}b", f"--cpus={quantity(limits['cpu']):g}"]
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # podman would raise limits, which needs a privilege
        options += [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={PROCESSES}:{PROCESSES}"]
        options += [f"--env={name}={value}" for name, value in self._own.items()]
        options += self._mounts(pod, container, name)
        shell = f"ulimit -n 65536; exec {shlex.join(words)}"  # as KubeRay starts Ray
        return [*PODMAN, "run", *options, self._image, "/bin/bash", "-c", "--", shell]

    def _mounts(self, pod: Object, container: Object, name: str) -> list[str]:
        user = pod["securityContext"]
        kinds = {volume["name"]: volume for volume in pod.get("volumes", [])}
        options = []
        for mount in container.get("volumeMounts", []):
            empty = kinds[mount["name"]].get("emptyDir", {})
            if empty.get("medium") == "Memory":
                options.append(f"--shm-size={int(quantity(empty['sizeLimit']))}b")
                continue
            folder = self._folders.get(mount["name"], self._root / name / mount["name"])
            folder.mkdir(parents=True, exist_ok=True)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user["runAsUser"], user["fsGroup"], follow_symlinks=False)
            options.append(f"--volume={folder}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}")
        return options

    def close(self) -> None:
        """See `Pods`."""
        if self._names and shutil.which(PODMAN[0]):
            subprocess.run([*PODMAN, "rm", "--force", "--ignore", *self._names], stdout=subprocess.DEVNULL)
