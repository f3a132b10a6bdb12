"""The pods that KubeRay makes of a RayJob or a RayCluster, and their Ray nodes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evoswarm.backend.ray.nodes import Nodes
from evoswarm.errors import UserError
from evoswarm.launch.k8s.quantity import quantity

Object = dict[str, Any]
SUBMITTER = {"resources": {"requests": {"cpu": "500m", "memory": "200Mi"}}}
"""KubeRay's container for `ray job submit` in a RayJob without a `submitterPodTemplate`."""
MOST = 2**31 - 1


@dataclass(frozen=True)
class Pods:
    """Equal pods: their number when the cluster starts, and their specification."""

    name: str
    count: int
    spec: Object

    @property
    def images(self) -> list[str]:
        """The images of the containers."""
        return [str(container["image"]) for container in self.spec["containers"] if "image" in container]

    @property
    def requests(self) -> dict[str, float]:
        """What one pod requests; like in Kubernetes, a limit without a request is one."""
        found: dict[str, float] = {}
        for container in self.spec["containers"]:
            for resource, amount in offered(container).items():
                found[resource] = found.get(resource, 0.0) + quantity(amount)
        return found


def cluster_spec(item: Object) -> Object:
    """The RayClusterSpec of a RayJob or a RayCluster."""
    spec: Object = item["spec"]["rayClusterSpec"] if item["kind"] == "RayJob" else item["spec"]
    return spec


def pods(item: Object) -> list[Pods]:
    """The pods of a RayJob or a RayCluster when it starts."""
    spec = cluster_spec(item)
    found = [Pods("head", 1, spec["headGroupSpec"]["template"]["spec"])]
    for group in spec.get("workerGroupSpecs") or []:
        found.append(Pods(group["groupName"], replicas(group), group["template"]["spec"]))
    if item["kind"] == "RayJob" and item["spec"].get("submissionMode", "K8sJobMode") == "K8sJobMode":
        template = item["spec"].get("submitterPodTemplate") or {"spec": {"containers": [SUBMITTER]}}
        found.append(Pods("submitter", 1, template["spec"]))
    return found


def replicas(group: Object, *, scaled: bool = False) -> int:
    """Pods of a worker group, at the start or after the autoscaler has added all that it may."""
    low, high = int(group.get("minReplicas") or 0), int(group.get("maxReplicas", MOST))
    count = high if scaled else min(max(int(group.get("replicas") or 0), low), high)
    return 0 if group.get("suspend") else count * int(group.get("numOfHosts", 1))


def capacity(spec: Object) -> list[Nodes]:
    """The maximum number of nodes of a RayClusterSpec, with the resources that KubeRay passes to `ray start`."""
    scaled = spec.get("enableInTreeAutoscaling", False)
    groups = [Nodes("head", 1, *_offer(spec["headGroupSpec"]), _labels("headgroup", spec["headGroupSpec"]))]
    for group in spec.get("workerGroupSpecs") or []:
        name = group["groupName"]
        groups.append(Nodes(name, replicas(group, scaled=scaled), *_offer(group), _labels(name, group)))
    return groups


def custom_resources(spec: Object) -> dict[str, dict[str, float]]:
    """Ray's custom resources of a node, by group."""
    groups = {"head": spec["headGroupSpec"]} | {g["groupName"]: g for g in spec.get("workerGroupSpecs") or []}
    return {name: _custom(group) for name, group in groups.items()}


def _custom(group: Object) -> dict[str, float]:
    """From `rayStartParams.resources`, which is JSON with quotes around it for the shell, and from `resources`."""
    text = str((group.get("rayStartParams") or {}).get("resources") or "{}").strip().strip("'\"").replace('\\"', '"')
    try:
        given = dict(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(
            f'rayStartParams.resources {text} is not a JSON object; write \'"{{\\"name\\": 1}}"\''
        ) from None
    own = {name: amount for name, amount in (group.get("resources") or {}).items() if name not in ("CPU", "GPU")}
    return {name: quantity(amount) for name, amount in (given | own).items()}


def _labels(name: str, group: Object) -> dict[str, str]:
    """The labels of a node in the manifest."""
    said = str((group.get("rayStartParams") or {}).get("labels", ""))
    pairs = (pair.partition("=") for pair in said.split(",") if pair)
    return {"ray.io/node-group": name} | {k.strip(): v.strip() for k, _, v in pairs} | (group.get("labels") or {})


def offered(container: Object) -> Mapping[str, Any]:
    """The resources of a container: its limits, completed by its requests."""
    resources = container.get("resources") or {}
    found: dict[str, Any] = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return found


def _offer(group: Object) -> tuple[float, float]:
    """CPUs and GPUs of a node: from `rayStartParams` or `resources`, else the limits of its first container."""
    params = group.get("rayStartParams") or {}
    said = {"CPU": params.get("num-cpus"), "GPU": params.get("num-gpus")} | (group.get("resources") or {})
    resources = group["template"]["spec"]["containers"][0].get("resources") or {}
    limits = (resources.get("requests") or {}) | (resources.get("limits") or {})
    gpus = next((limits[name] for name in sorted(limits) if _is_gpu(name) and quantity(limits[name])), 0)
    cpus = limits.get("cpu", 0) if said["CPU"] is None else said["CPU"]
    return float(math.ceil(quantity(cpus))), float(math.ceil(quantity(gpus if said["GPU"] is None else said["GPU"])))


def _is_gpu(resource: str) -> bool:
    """Whether KubeRay counts a resource as GPUs of Ray: whole ones, or slices of one (MIG)."""
    return resource.endswith("gpu") or bool(re.fullmatch(r"nvidia\.com/mig-\d+g\.\d+gb", resource))
