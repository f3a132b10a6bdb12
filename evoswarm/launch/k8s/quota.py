"""Whether the quotas in a manifest can ever admit a job: Kueue's ClusterQueue, and Kubernetes' ResourceQuota."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from evoswarm.backend.ray.nodes import CLOSE
from evoswarm.launch.k8s.pods import Object, Pods, pods
from evoswarm.launch.k8s.quantity import quantity

QUEUE = "kueue.x-k8s.io/queue-name"
UNITS = {"memory": (2.0**30, "Gi")}


def quota_problem(item: Object, objects: Sequence[Object]) -> str | None:
    """Why a RayJob or RayCluster can never be admitted, with what to change; None if nothing is known to prevent it."""
    groups = pods(item)
    queue = _queue(item, objects)
    found = [*(_in_queue(queue, groups) if queue else ())]
    for quota in (o for o in objects if o.get("kind") == "ResourceQuota"):
        found += _in_quota(quota, groups)
    return found[0] if found else None


def _queue(item: Object, objects: Sequence[Object]) -> Object | None:
    """The ClusterQueue behind the queue of a job, if the manifest has both."""
    name = ((item.get("metadata") or {}).get("labels") or {}).get(QUEUE)
    local = _named(objects, "LocalQueue", name)
    return _named(objects, "ClusterQueue", local["spec"]["clusterQueue"]) if local else None


def _named(objects: Sequence[Object], kind: str, name: str | None) -> Object | None:
    return next((o for o in objects if o.get("kind") == kind and o["metadata"]["name"] == name), None)


def _in_queue(queue: Object, groups: Sequence[Pods]) -> Iterator[str]:
    """Kueue's rules: every resource is covered, a kind of pod fits into one flavor, and all pods into all flavors."""
    name, spec = f"ClusterQueue {queue['metadata']['name']}", queue["spec"]
    shared = bool(spec.get("cohort") or spec.get("cohortName"))
    for resource, amount in _total(groups).items():
        quotas = [
            _quota(entry, shared=shared)
            for group in spec.get("resourceGroups") or []
            for flavor in group["flavors"]
            for entry in flavor["resources"]
            if entry["name"] == resource
        ]
        if not quotas:
            yield (
                f"its pods request {resource}, which {name} does not cover, so Kueue never admits it; add it to "
                "coveredResources, with a quota"
            )
            continue
        largest = max(group.count * group.requests.get(resource, 0) for group in groups)
        for need, have in ((amount, sum(quotas)), (largest, max(quotas))):
            if need > have + CLOSE:
                yield (
                    f"its pods request {_written(resource, need)}, the quota of {name} is {_written(resource, have)}, "
                    "so Kueue never admits it; raise nominalQuota, or lower the replicas or requests of the workers"
                )


def _quota(entry: Object, *, shared: bool) -> float:
    """What a queue may use of a flavor, with what it may borrow."""
    borrowed = entry.get("borrowingLimit")
    if shared and borrowed is None:
        return math.inf
    return quantity(entry.get("nominalQuota", 0)) + (quantity(borrowed) if shared else 0.0)


def _in_quota(quota: Object, groups: Sequence[Pods]) -> Iterator[str]:
    """The pods against a ResourceQuota that counts all pods."""
    spec, total = quota["spec"], _total(groups)
    if spec.get("scopes") or spec.get("scopeSelector"):
        return
    total |= {"pods": float(sum(group.count for group in groups))}
    for key, most in (spec.get("hard") or {}).items():
        resource = key.removeprefix("requests.").removeprefix("limits.").removeprefix("count/")
        if total.get(resource, 0) > quantity(most) + CLOSE:
            yield (
                f"its pods take {_written(resource, total[resource])}, ResourceQuota {quota['metadata']['name']} has "
                f"{_written(resource, quantity(most))}, so some never start; raise {key}, or lower the replicas or "
                "requests of the workers"
            )


def _total(groups: Sequence[Pods]) -> dict[str, float]:
    """The requests of all pods."""
    found: dict[str, float] = {}
    for group in groups:
        for resource, amount in group.requests.items():
            found[resource] = found.get(resource, 0.0) + group.count * amount
    return {resource: amount for resource, amount in found.items() if amount}


def _written(resource: str, amount: float) -> Any:
    size, unit = UNITS.get(resource, (1.0, ""))
    return f"{amount / size:g}{unit} {resource}" if amount < math.inf else "unlimited"
