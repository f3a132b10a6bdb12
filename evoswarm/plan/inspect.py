"""The hardware of this machine, or of a Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from evoswarm.config.backend import LocalBackend, RayBackend
from evoswarm.errors import UserError
from evoswarm.plan.hardware import GB, Gpu, Hardware, gpu_with

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux has the memory limit of a container, in its two versions of control groups."""


def this_machine() -> Hardware:
    """This machine as one node."""
    import torch

    gpus, gpu = torch.cuda.device_count(), None
    if gpus:
        found = torch.cuda.get_device_properties(0)
        gpu = gpu_with(found.total_memory / GB, found.name)
    return Hardware(1, gpus, len(os.sched_getaffinity(0)), gpu, host_memory() / GB)


def host_memory(limits: Sequence[Path] = LIMITS) -> int:
    """Bytes of memory of this machine, or of the container that this process is in.

    Args:
        limits: files with a container's limit, of which some may not exist.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in limits:
        text = path.read_text().strip() if path.exists() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found)


def cluster(config: RayBackend) -> Hardware:
    """The nodes of the connected cluster that may hold scorers; of several kinds, the smallest counts for all.

    Raises:
        UserError: no node fits.
    """
    import ray

    from evoswarm.backend.ray.nodes import Nodes

    alive = [node for node in ray.nodes() if node["Alive"]]
    fitting = [n for n in alive if Nodes("", 1, 0, 0, n.get("Labels") or {}).has(config.scorer_labels)]
    with_gpus = [n for n in fitting if n["Resources"].get("GPU")]
    chosen = with_gpus or fitting
    if not chosen:
        raise UserError("no node of the cluster has the labels of backend.scorer_labels")
    resources = [node["Resources"] for node in chosen]
    gpus = int(min(r.get("GPU", 0) for r in resources))
    return Hardware(
        len(chosen),
        gpus,
        int(min(r.get("CPU", 0) for r in resources)),
        _gpu(chosen[0].get("Labels") or {}) if gpus else None,
        min(r.get("memory", 0) + r.get("object_store_memory", 0) for r in resources) / GB,
    )


def _gpu(labels: Mapping[str, str]) -> Gpu | None:
    """The kind of GPU that Ray names; None if it names none."""
    name = labels.get("ray.io/accelerator-type")
    return gpu_with(0, name) if name else None


def hardware_of(backend: LocalBackend | RayBackend) -> Hardware:
    """The connected cluster, or this machine for a run without Ray or before Ray has started.

    Raises:
        UserError: no node of the cluster fits.
    """
    return cluster(backend) if isinstance(backend, RayBackend) and connected() else this_machine()


def connected() -> bool:
    """Whether this process has joined a Ray cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
