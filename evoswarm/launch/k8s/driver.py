"""The resources that a RayJob reserves for its driver, on one node."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evoswarm.backend.ray.nodes import CLOSE, Nodes
from evoswarm.errors import UserError
from evoswarm.launch.k8s.pods import Object, custom_resources
from evoswarm.launch.k8s.quantity import quantity

UNKNOWN = ("accelerator_type:", "node:")
"""Resources that a node gets only when it starts."""


@dataclass(frozen=True)
class Driver:
    """What the entrypoint of a RayJob takes from one node for as long as it runs."""

    cpus: float
    gpus: float
    custom: Mapping[str, float]

    def fits(self, node: Nodes, custom: Mapping[str, float]) -> bool:
        """Whether one of these nodes can hold it."""
        enough = self.cpus <= node.cpus + CLOSE and self.gpus <= node.gpus + CLOSE
        return bool(node.count) and enough and all(n <= custom.get(name, 0) + CLOSE for name, n in self.custom.items())

    def __str__(self) -> str:
        parts = {"CPUs": self.cpus, "GPUs": self.gpus} | dict(self.custom)
        return ", ".join(f"{amount:g} {name}" for name, amount in parts.items() if amount) or "nothing"


def driver_of(job: Object) -> Driver:
    """The resources in the `entrypoint...` fields of a RayJob."""
    spec = job["spec"]
    text = spec.get("entrypointResources") or "{}"
    try:
        custom = dict(json.loads(text))
    except (ValueError, TypeError):
        raise UserError(f"entrypointResources {text!r} is not a JSON object; write '{{\"name\": 1}}'") from None
    for name in {"CPU", "GPU"} & custom.keys():
        raise UserError(f"entrypointResources has {name}; set entrypointNum{name.capitalize()}s instead")
    amounts = {name: quantity(amount) for name, amount in custom.items() if not name.startswith(UNKNOWN)}
    return Driver(quantity(spec.get("entrypointNumCpus") or 0), quantity(spec.get("entrypointNumGpus") or 0), amounts)


def without_driver(
    job: Object, spec: Object, groups: Sequence[Nodes], missing: Callable[[Sequence[Nodes]], str | None]
) -> str | None:
    """What is missing for the run next to its driver, wherever Ray places that; None if nothing is missing.

    Args:
        job: a RayJob.
        spec: its RayClusterSpec.
        groups: the nodes of the cluster.
        missing: what some nodes do not have for the actors of the run, in a sentence.
    """
    driver, custom = driver_of(job), custom_resources(spec)
    places = [i for i, node in enumerate(groups) if driver.fits(node, custom[node.name])]
    if not places:
        return (
            f"the entrypoint takes {driver} (entrypointNumCpus, entrypointNumGpus, entrypointResources), and no single "
            "node has that, so the job never starts; remove these fields: the driver needs none"
        )
    found: list[Any] = [missing(_less(groups, i, driver)) for i in places]
    if None in found:
        return None
    return f"{found[0]}; the entrypoint takes {driver} of it (entrypointNumCpus, entrypointNumGpus), and needs none"


def _less(groups: Sequence[Nodes], place: int, driver: Driver) -> list[Nodes]:
    """The nodes, one of which holds the driver."""
    node = groups[place]
    host = replace(node, count=1, cpus=node.cpus - driver.cpus, gpus=node.gpus - driver.gpus)
    return [*groups[:place], replace(node, count=node.count - 1), host, *groups[place + 1 :]]
