"""The hardware of this machine, or of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from evoswarm.config.backend import RayBackend
from evoswarm.errors import UserError
from evoswarm.plan.hardware import GB, Gpu, Hardware, gpu_with


def this_machine() -> Hardware:
    """This machine as one node."""
    import torch

    gpus, gpu = torch.cuda.device_count(), None
    if gpus:
        found = torch.cuda.get_device_properties(0)
        gpu = gpu_with(found.total_memory / GB, found.name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware(1, gpus, len(os.sched_getaffinity(0)), gpu, memory / GB)


def cluster(config: RayBackend, message: Callable[[str], None]) -> Hardware:
    """The nodes of a cluster that may hold scorers; of several kinds, the smallest counts for all.

    Raises:
        UserError: nothing answers at the address, or no node fits.
    """
    import ray

    from evoswarm.backend.ray.nodes import Nodes
    from evoswarm.launch.connect import connected

    with connected(config, message):
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


def _gpu(labels: Mapping[str, str]) -> Gpu:
    name = labels.get("ray.io/accelerator-type")
    if not name:
        raise UserError("the cluster does not say which GPUs it has; give --gpu-memory")
    return gpu_with(0, name)


def hardware_of(
    backend: object,
    message: Callable[[str], None],
    *,
    gpus: int | None = None,
    nodes: int | None = None,
    gpu_memory_gb: float | None = None,
    node_memory_gb: float | None = None,
    cpus: int | None = None,
) -> Hardware:
    """The hardware that the arguments describe; what they leave out is that of the cluster or of this machine.

    Args:
        backend: the `backend` section of the run.
        message: receives progress messages.
        gpus: GPUs per node.
        nodes: number of nodes.
        gpu_memory_gb: memory of a GPU, 10^9 bytes.
        node_memory_gb: memory of a node, 10^9 bytes.
        cpus: CPU cores per node.

    Raises:
        UserError: GPUs without a known memory size.
    """
    described = gpus is not None or nodes is not None
    joins = isinstance(backend, RayBackend) and (backend.address or os.environ.get("RAY_ADDRESS"))
    found = cluster(backend, message) if not described and joins and isinstance(backend, RayBackend) else this_machine()
    gpus = found.gpus if gpus is None else gpus
    if gpus and gpu_memory_gb is None and found.gpu is None:
        raise UserError("--gpus needs --gpu-memory: the memory of one GPU in GB, for example 80")
    gpu = gpu_with(gpu_memory_gb) if gpu_memory_gb is not None else found.gpu
    return Hardware(
        nodes or found.nodes,
        gpus,
        cpus or (max(found.cpus, 8 * gpus) if described else found.cpus),
        gpu if gpus else None,
        node_memory_gb
        or (max(found.node_memory_gb, 2 * gpus * (gpu.memory_gb if gpu else 0)) if described else found.node_memory_gb),
    )
