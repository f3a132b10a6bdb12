"""Memory and time of a run, from sizes alone. Pure arithmetic: starts nothing and reads nothing.

The time model counts bytes and operations: installing a particle reads the pristine parameters and writes the adapted
ones; a prompt token costs 2 operations per parameter; a decoding step reads the weights and the keys and values of the
running sequences once. `EFFICIENCY` says which share of the data sheet's rates is assumed to be reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from evoswarm.backend.ray.placement import Placement
from evoswarm.plan.hardware import GB, Hardware
from evoswarm.plan.shape import Shape
from evoswarm.plan.workload import Workload

EFFICIENCY = {"arithmetic": 0.4, "bandwidth": 0.7}
OVERHEAD_GB = 2.5
"""Of a GPU engine: CUDA context, CUDA graphs and activations."""
PROCESS_GB = {"scorer": 4.0, "particle": 0.15, "other": 4.0}
"""Host memory of one process without weights. other: Ray, the coordinator and the driver."""
CPU = {"gflops": 30.0, "bandwidth_gb": 8.0, "moved_gb": 1.0}
"""Per core: matrix arithmetic in float32, memory bandwidth, and weights of particles that are materialized."""
STEP_SECONDS = 0.004
"""Least time of one decoding step: the engine's own work between two launches."""
OBJECT_STORE_SHARE = 0.3
"""Ray's default share of a node's memory."""
FREE_SHARE = 0.2
"""`pristine: auto` keeps the copy on the GPU if this share of its memory stays free."""


@dataclass(frozen=True)
class EngineSettings:
    """What a plan needs to know of an engine.

    Attributes:
        ranks: GPUs of one engine.
        memory_share: share of a GPU's memory that the engine may fill.
        running: most sequences at once.
        pristine: where the copy of the adapted parameters is: auto, device or host.
        adapters: adapters that one batch holds (multi_lora), else 0.
    """

    ranks: int = 1
    memory_share: float = 0.9
    running: int = 1024
    pristine: str = "auto"
    adapters: int = 0


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU with one rank of a scorer, in bytes. `kv_cache` is what is left for keys and values."""

    weights: int
    pristine: int
    adapters: int
    overhead: int
    kv_cache: int
    total: int


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


@dataclass(frozen=True)
class Seconds:
    """Estimated seconds. `install`, `read` and `write` are of one evaluation on one scorer."""

    install: float
    read: float
    write: float
    generation: float


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        placement: the actors.
        gpu: memory of a GPU; None without GPUs.
        node: memory of a node.
        pristine: where the copy of the adapted parameters is: device or host.
        max_model_len: longest sequence in tokens.
        running: sequences that an engine runs at once.
        moved_bytes: weights that leave particles in one generation.
        seconds: the time model's result.
        problems: why it does not fit, with what to change; empty if it fits.
        assumptions: what the figures assume.
    """

    placement: Placement
    gpu: GpuMemory | None
    node: NodeMemory
    pristine: str
    max_model_len: int
    running: int
    moved_bytes: int
    seconds: Seconds
    problems: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the run fits on the hardware."""
        return not self.problems


def estimate(
    shape: Shape, workload: Workload, *, experts: int, engine: EngineSettings, placement: Placement, hardware: Hardware
) -> Plan:
    """The plan of a run.

    Args:
        shape: base model and expert.
        workload: the validation split.
        experts: size of the pool.
        engine: how the engine is set.
        placement: the actors on this hardware.
        hardware: the machines.
    """
    length = min(workload.longest, shape.longest or workload.longest)
    pristine, gpu = _gpu_memory(shape, engine, placement, hardware)
    running = _running(shape, workload, engine, gpu)
    node = _node_memory(shape, experts, pristine, placement, hardware)
    seconds = _seconds(shape, workload, running, engine, placement, hardware)
    problems = [*_gpu_problems(shape, length, engine, gpu, hardware), *_node_problems(node, pristine, hardware)]
    moved = placement.particles * shape.expert_bytes
    return Plan(placement, gpu, node, pristine, length, running, moved, seconds, problems, _assumptions(hardware))


def _gpu_memory(
    shape: Shape, engine: EngineSettings, placement: Placement, hardware: Hardware
) -> tuple[str, GpuMemory | None]:
    if hardware.gpu is None or not placement.scorer_gpus:
        return "host", None
    share = engine.memory_share * min(1.0, placement.scorer_gpus)
    memory = int(hardware.gpu.memory_gb * GB * share)
    weights, copy = shape.weight_bytes // engine.ranks, shape.pristine_bytes // engine.ranks
    adapters = engine.adapters * shape.expert_bytes // engine.ranks
    overhead = int(OVERHEAD_GB * GB)
    where = engine.pristine
    if where == "auto":
        free = memory - weights - copy - adapters - overhead
        where = "device" if free >= FREE_SHARE * hardware.gpu.memory_gb * GB else "host"
    copy = copy if where == "device" else 0
    left = memory - weights - copy - adapters - overhead
    return where, GpuMemory(weights, copy, adapters, overhead, left, memory)


def _running(shape: Shape, workload: Workload, engine: EngineSettings, gpu: GpuMemory | None) -> int:
    most = min(engine.running, max(1, workload.examples))
    if gpu is None:
        return most
    sequence = workload.mean * shape.kv_bytes_per_token / engine.ranks
    return max(1, min(most, int(max(0, gpu.kv_cache) // max(1.0, sequence))))


def _node_memory(shape: Shape, experts: int, pristine: str, placement: Placement, hardware: Hardware) -> NodeMemory:
    scorers, particles = ceil(placement.scorers / hardware.nodes), ceil(placement.particles / hardware.nodes)
    own = shape.weight_bytes + shape.pristine_bytes if hardware.gpu is None or not placement.scorer_gpus else 0
    own += shape.pristine_bytes if pristine == "host" and not own else 0
    resident = 0 if placement.particle_gpus else shape.expert_bytes
    return NodeMemory(
        scorers=int(scorers * (PROCESS_GB["scorer"] * GB + own)),
        particles=int(particles * (PROCESS_GB["particle"] * GB + resident)),
        object_store=2 * particles * shape.expert_bytes + scorers * shape.expert_bytes,
        other=int(PROCESS_GB["other"] * GB),
        page_cache=experts * shape.expert_bytes + shape.weight_bytes,
    )


def _seconds(
    shape: Shape,
    workload: Workload,
    running: int,
    engine: EngineSettings,
    placement: Placement,
    hardware: Hardware,
) -> Seconds:
    flops, bandwidth = _rates(engine, placement, hardware)
    install = 2 * shape.pristine_bytes / bandwidth
    read = 2 * shape.parameters * workload.prompt_tokens / flops
    cache = running * workload.mean * shape.kv_bytes_per_token
    step = max((shape.weight_bytes + cache) / bandwidth, 2 * shape.parameters * running / flops, STEP_SECONDS)
    write = workload.new_tokens * ceil(workload.examples / running) * step
    score = placement.particles * (install + read + write) / placement.scorers
    cores = hardware.nodes * hardware.cpus
    move = (
        placement.particles * shape.expert_bytes / (cores * CPU["moved_gb"] * GB) if not placement.particle_gpus else 0
    )
    return Seconds(install, read, write, max(score, move))


def _rates(engine: EngineSettings, placement: Placement, hardware: Hardware) -> tuple[float, float]:
    """Operations and bytes per second of one engine."""
    if hardware.gpu is None or not placement.scorer_gpus:
        return placement.cpus * CPU["gflops"] * GB, placement.cpus * CPU["bandwidth_gb"] * GB
    share = engine.ranks * min(1.0, placement.scorer_gpus)
    return (
        share * hardware.gpu.tflops * 1e12 * EFFICIENCY["arithmetic"],
        share * hardware.gpu.bandwidth_gb * GB * EFFICIENCY["bandwidth"],
    )


def _gpu_problems(
    shape: Shape, length: int, engine: EngineSettings, gpu: GpuMemory | None, hardware: Hardware
) -> list[str]:
    if gpu is None or hardware.gpu is None:
        return []
    needed = length * shape.kv_bytes_per_token // engine.ranks
    if gpu.kv_cache >= needed:
        return []
    short = (needed - gpu.kv_cache) / GB
    text = f"a GPU with {hardware.gpu.memory_gb:g} GB is {short:.1f} GB too small for the engine"
    split = [ranks for ranks in (2, 4, 8) if engine.ranks < ranks <= hardware.gpus]
    whole = gpu.total + needed - gpu.kv_cache - gpu.overhead
    enough = [r for r in split if whole * engine.ranks / r + gpu.overhead <= gpu.total]
    if enough:
        return [f"{text}; set engine.args.tensor_parallel_size: {enough[0]}"]
    return [f"{text}; use GPUs with more memory, or more of them per node with engine.args.tensor_parallel_size"]


def _node_problems(node: NodeMemory, pristine: str, hardware: Hardware) -> list[str]:
    have = hardware.node_memory_gb * GB
    problems = []
    if node.total > have:
        change = "backend.scorers" if node.scorers >= node.particles else "search.population"
        problems.append(
            f"a node needs {node.total / GB:.1f} GB of memory and has {have / GB:.1f} GB; lower {change}, or add nodes"
        )
    elif node.object_store > OBJECT_STORE_SHARE * have:
        problems.append(
            f"weights in flight need {node.object_store / GB:.1f} GB of Ray's object store, which has "
            f"{OBJECT_STORE_SHARE * have / GB:.1f} GB; start nodes with `ray start --object-store-memory`, or add nodes"
        )
    return problems


def _assumptions(hardware: Hardware) -> list[str]:
    lines = []
    if hardware.gpu is not None:
        gpu = hardware.gpu
        lines.append(
            f"a GPU like {gpu.name} ({gpu.tflops:g} TFLOP/s bf16, {gpu.bandwidth_gb:g} GB/s) at "
            f"{EFFICIENCY['arithmetic']:.0%} of its arithmetic and {EFFICIENCY['bandwidth']:.0%} of its bandwidth"
        )
    lines.append("every answer has max_new_tokens tokens, and every particle is evaluated on the whole split")
    return lines
