"""Checks whether the pods of a Kubernetes manifest can start, and whether their Ray nodes can hold the run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place_run
from evoswarm.config import RunConfig
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.launch.k8s.driver import without_driver
from evoswarm.launch.k8s.images import differences, image_problem
from evoswarm.launch.k8s.pods import Object, capacity, cluster_spec
from evoswarm.launch.k8s.quota import quota_problem
from evoswarm.launch.k8s.volumes import volume_problem


def read_manifest(source: str) -> list[Object]:
    """The objects of a YAML file, of standard input (`-`), or of a kustomize folder, which `kubectl kustomize` renders.

    Raises:
        UserError: the manifest cannot be read or rendered.
    """
    try:
        text = sys.stdin.read() if source == "-" else _rendered(source)
        objects = [item for item in yaml.safe_load_all(text) if item]
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); give a rendered manifest") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an invalid date
        raise UserError(f"{source}: is not YAML ({str(error).splitlines()[0]})") from None
    except RecursionError:
        raise UserError(f"{source}: is nested too deeply") from None
    found = [inner for item in objects for inner in _members(item)]
    if not all(isinstance(item, dict) and isinstance(item.get("metadata") or {}, dict) for item in found):
        raise UserError(f"{source}: has something that is not a Kubernetes object")
    return found


def _members(item: Any) -> list[Any]:
    """The items of a List; any other object itself."""
    items = item.get("items") or [] if isinstance(item, dict) and item.get("kind") == "List" else None
    return items if isinstance(items, list) else [item]


def _rendered(folder: str) -> str:
    if not Path(folder).is_dir():
        return Path(folder).read_text(encoding="utf-8")
    scripts = Path(sys.executable).parent  # where pip installs programs, even if it is not on PATH
    kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=scripts)
    if not kubectl:
        raise UserError(f"{folder}: is a folder, and kubectl is not installed to render it; give the rendered file")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{folder}: kubectl kustomize: {' '.join(done.stderr.split())}")
    return done.stdout


def check_manifest(source: str, config: RunConfig | None = None) -> list[str]:
    """Check that the pods of a manifest can start and hold its run.

    Without a config, it is the one in the ConfigMap that the entrypoint of the RayJob reads.

    Returns:
        One line for each RayJob or, without one, each RayCluster, and lines that begin with `warning: `.

    Raises:
        UserError: it has no run, the config is wrong, its pods never start, or all of them cannot hold the run.
    """
    objects = read_manifest(source)
    found = [item for item in objects if item.get("kind") == "RayJob"]
    found = found or [item for item in objects if item.get("kind") == "RayCluster"]
    if not found:
        raise UserError(f"{source}: has neither a RayJob nor a RayCluster; give the output of `kubectl kustomize`")
    return [line for item in found for line in _check(item, objects, config, source)]


def _check(item: Object, objects: list[Object], config: RunConfig | None, source: str) -> list[str]:
    where = f"{source}: {item['kind']} {(item.get('metadata') or {}).get('name', '?')}"
    try:
        config = config or embedded_config(item, objects, where)
        problem = image_problem(item) or volume_problem(item, objects) or quota_problem(item, objects)
        warnings = [f"warning: {where}: {text}" for text in differences(item)]
        text = f"{where}: ok; {config.name}: {_fitting(item, config, where)}"
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(source) else f"{where}: {error}") from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UserError(f"{where}: is not complete ({type(error).__name__}: {error}); compare k8s/base") from None
    if problem:
        raise UserError(f"{where}: {problem}")
    return [text, *warnings]


def _fitting(item: Object, config: RunConfig, where: str) -> str:
    """The actors of the run in one line.

    Raises:
        UserError: the nodes cannot hold them.
    """
    if not isinstance(config.backend, RayBackend):
        raise UserError(f"{where}: backend.type is {config.backend.type}, which uses only one pod; set it to ray")
    spec = cluster_spec(item)
    groups = capacity(spec)
    placement = place_run(_only_known_labels(config, groups), groups)
    problem = missing(placement, groups)
    if not problem and item["kind"] == "RayJob":
        problem = without_driver(item, spec, groups, lambda nodes: missing(placement, nodes))
    if problem:
        most = ", ".join(map(str, groups))
        raise UserError(f"{where}: {problem}. With all replicas the manifest allows there are {most}")
    graders = f", {placement.graders} graders x {placement.grader_gpus:g} GPUs" if placement.graders else ""
    return (
        f"{placement.particles} particles x {placement.particle_gpus:g} GPUs, "
        f"{placement.scorers} scorers x {placement.scorer_gpus:g} GPUs and {placement.cpus} CPUs{graders}"
    )


def _only_known_labels(config: RunConfig, groups: Sequence[Nodes]) -> RunConfig:
    """The config without conditions on labels that a node gets only when it starts (its GPU, its zone)."""
    said = {key for group in groups for key in group.labels}

    def known(labels: Mapping[str, str]) -> dict[str, str]:
        return {key: value for key, value in labels.items() if key in said or not key.startswith("ray.io/")}

    backend = config.backend
    assert isinstance(backend, RayBackend)
    return config.with_(
        backend={
            "particle_labels": known(backend.particle_labels),
            "scorer_labels": known(backend.scorer_labels),
            "grader_labels": known(backend.grader_labels),
        }
    )


def embedded_config(job: Object, objects: list[Object], where: str = "RayJob") -> RunConfig:
    """The config that the entrypoint of a RayJob runs, from its mounted ConfigMap.

    Raises:
        UserError: there is no config, or it is wrong.
    """
    words = shlex.split(job["spec"].get("entrypoint", ""))
    if job["kind"] != "RayJob":
        raise UserError(f"{where}: a RayCluster has no run of its own; give a config too")
    if "run" not in words[:-1]:
        raise UserError(f"{where}: its entrypoint is not `evoswarm run CONFIG`; give a config too")
    path = PurePosixPath(words[words.index("run") + 1])
    text = _mounted(path, job, objects)
    if text is None:
        raise UserError(f"{where}: no ConfigMap of the manifest is mounted as {path}; give the config too")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: {path} is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: {path} must be a mapping with at least model, pool and utility")
    overrides = [value for option, value in zip(words, words[1:], strict=False) if option == "--set"]
    return parse_config(apply_overrides(data, overrides), root=Path(path.parent), source=f"{where}: {path}")


def _mounted(path: PurePosixPath, job: Object, objects: list[Object]) -> str | None:
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {m["name"] for m in pod["containers"][0].get("volumeMounts", []) if m["mountPath"] == str(path.parent)}
    maps = {v["configMap"]["name"] for v in pod.get("volumes", []) if v["name"] in mounts and "configMap" in v}
    for item in objects:
        if item.get("kind") == "ConfigMap" and item["metadata"]["name"] in maps:
            text: str | None = item.get("data", {}).get(path.name)
            return text
    return None
