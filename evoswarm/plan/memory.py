"""Memory of GPUs and nodes, and why a run does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from evoswarm.plan.case import Case
from evoswarm.plan.hardware import GB

OVERHEAD_GB = 2.5
"""Of a GPU engine: CUDA context, CUDA graphs and activations."""
PROCESS_GB = {"scorer": 4.0, "particle": 0.15, "other": 4.0}
"""Host memory of one process without weights. other: Ray, the coordinator and the driver."""
OBJECT_STORE_SHARE = 0.3
"""Ray's default share of a node's memory."""
FREE_SHARE = 0.2
"""`pristine: auto` keeps the copy on the GPU if this share of its memory stays free."""


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU with one rank of a scorer, in bytes. `kv_cache` is what is left for keys and values.

    `place` says where the pristine copy is: on the device, or on the host (then `pristine` is 0).
    """

    place: str
    weights: int
    pristine: int
    adapters: int
    overhead: int
    total: int

    @property
    def kv_cache(self) -> int:
        """Negative if the rest does not fit."""
        return self.total - self.weights - self.pristine - self.adapters - self.overhead


@dataclass(frozen=True)
class NodeMemory:
    """Host memory of one node in bytes. `page_cache` can be reclaimed and is not part of `total`."""

    scorers: int
    particles: int
    object_store: int
    other: int
    page_cache: int

    @property
    def total(self) -> int:
        """What must fit."""
        return self.scorers + self.particles + self.object_store + self.other


def gpu_memory(case: Case) -> GpuMemory | None:
    """Memory of one GPU; None if engines run on CPUs."""
    gpu, engine, shape = case.hardware.gpu, case.engine, case.shape
    if gpu is None or not case.on_gpu:
        return None
    total = int(gpu.memory_gb * GB * engine.memory_share * case.gpu_share)
    copy, adapters = shape.pristine_bytes // engine.ranks, engine.adapters * shape.expert_bytes // engine.ranks
    weights, overhead = shape.weight_bytes // engine.ranks, int(OVERHEAD_GB * GB)
    on_device = GpuMemory("device", weights, copy, adapters, overhead, total)
    on_host = GpuMemory("host", weights, 0, adapters, overhead, total)
    if engine.pristine != "auto":
        return on_device if engine.pristine == "device" else on_host
    return on_device if on_device.kv_cache >= FREE_SHARE * gpu.memory_gb * GB else on_host


def running(case: Case, gpu: GpuMemory | None) -> int:
    """Sequences that an engine runs at once."""
    most = min(case.engine.running, max(1, case.workload.examples))
    if gpu is None:
        return most
    sequence = max(1.0, case.workload.mean * case.shape.kv_bytes_per_token / case.engine.ranks)
    return max(1, min(most, int(max(0, gpu.kv_cache) // sequence)))


def node_memory(case: Case, gpu: GpuMemory | None) -> NodeMemory:
    """Memory of the node with the most actors, if they are spread evenly."""
    shape, placement = case.shape, case.placement
    scorers, particles = (ceil(n / case.hardware.nodes) for n in (placement.scorers, placement.particles))
    weights = shape.weight_bytes + shape.pristine_bytes if gpu is None else 0
    if gpu is not None and gpu.place == "host":
        weights = shape.pristine_bytes
    resident = 0 if placement.particle_gpus else shape.expert_bytes
    return NodeMemory(
        scorers=int(scorers * (PROCESS_GB["scorer"] * GB + weights)),
        particles=int(particles * (PROCESS_GB["particle"] * GB + resident)),
        object_store=(2 * particles + scorers) * shape.expert_bytes,
        other=int(PROCESS_GB["other"] * GB),
        page_cache=case.experts * shape.expert_bytes + shape.weight_bytes,
    )


def problems(case: Case, gpu: GpuMemory | None, node: NodeMemory) -> list[str]:
    """Why the run does not fit, each with what to change; empty if it fits."""
    found = [] if gpu is None else _gpu_problem(case, gpu)
    have = case.hardware.node_memory_gb * GB
    if node.total > have:
        change = "backend.scorers" if node.scorers >= node.particles else "search.population"
        found.append(
            f"a node needs {node.total / GB:.1f} GB of memory and has {have / GB:.1f} GB; lower {change}, or add nodes"
        )
    elif node.object_store > OBJECT_STORE_SHARE * have:
        found.append(
            f"weights in flight need {node.object_store / GB:.1f} GB of Ray's object store, which has "
            f"{OBJECT_STORE_SHARE * have / GB:.1f} GB; start nodes with `ray start --object-store-memory`, or add nodes"
        )
    return found


def _gpu_problem(case: Case, gpu: GpuMemory) -> list[str]:
    """The engine needs room for at least one sequence of full length."""
    needed = case.length * case.shape.kv_bytes_per_token // case.engine.ranks
    if gpu.kv_cache >= needed or case.hardware.gpu is None:
        return []
    short = (needed - gpu.kv_cache) / GB
    text = f"a GPU with {case.hardware.gpu.memory_gb:g} GB is {short:.1f} GB too small for the engine"
    divisible = (gpu.total - gpu.kv_cache - gpu.overhead + needed) * case.engine.ranks
    larger = [ranks for ranks in (2, 4, 8) if case.engine.ranks < ranks <= case.hardware.gpus]
    fitting = [ranks for ranks in larger if divisible / ranks + gpu.overhead <= gpu.total]
    if fitting:
        return [f"{text}; set engine.args.tensor_parallel_size: {fitting[0]}"]
    return [f"{text}; use GPUs with more memory, or more GPUs per node and engine.args.tensor_parallel_size"]
