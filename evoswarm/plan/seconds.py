"""Time of a run, from bytes and operations.

Installing a particle writes the adapted parameters. A prompt token costs 2 operations per parameter. A decoding step
reads the weights and the keys and values of the running sequences once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from evoswarm.plan.case import Case
from evoswarm.plan.hardware import GB
from evoswarm.plan.memory import GpuMemory, running

EFFICIENCY = {"arithmetic": 0.4, "bandwidth": 0.7}
"""Shares of the data sheet's rates that engines reach."""
INSTALL = {"device": 0.05, "host": 40.0}
"""Parameters that an install writes per second. device: as a share of the GPU's bandwidth; host: GB over PCIe from
pinned memory. Measured on one H100 with rank 16 to 64 (docs/results/benchmarks.md)."""
STEP_SECONDS = 0.004
"""Least time of one decoding step: the engine's own work between two launches."""
CPU = {"gflops": 30.0, "bandwidth_gb": 8.0, "moved_gb": 1.0}
"""Per core: matrix arithmetic in float32, memory bandwidth, and weights of particles that are materialized."""


@dataclass(frozen=True)
class Seconds:
    """Estimated seconds. `install`, `read` and `write` are of one evaluation on one scorer, `extras` of all extras."""

    install: float
    read: float
    write: float
    generation: float
    extras: float


def seconds(case: Case, gpu: GpuMemory | None) -> Seconds:
    """The time of one evaluation, of one generation, and of what belongs to no generation."""
    placement, evaluation = case.placement, _evaluation(case, gpu)
    score = placement.particles * sum(evaluation) / placement.scorers
    others = (e.evaluations * sum(_evaluation(replace(case, workload=e.workload), gpu)) for e in case.extras)
    return Seconds(*evaluation, max(score, _moving(case)), sum(others) / placement.scorers)


def _evaluation(case: Case, gpu: GpuMemory | None) -> tuple[float, float, float]:
    """Seconds to install a particle, to read the prompts and to write the answers of a split."""
    shape, work, at_once = case.shape, case.workload, running(case, gpu)
    flops, bandwidth = _rates(case)
    install = shape.adapted_bytes / _install_rate(case, gpu)
    read = 2 * shape.parameters * work.prompt_tokens / flops
    cache = at_once * work.mean * shape.kv_bytes_per_token
    step = max((shape.weight_bytes + cache) / bandwidth, 2 * shape.parameters * at_once / flops)
    write = work.new_tokens * ceil(work.examples / at_once) * max(step, STEP_SECONDS)
    return install, read, write


def _moving(case: Case) -> float:
    """Materializing all particles on CPUs, which overlaps with scoring."""
    if case.placement.particle_gpus:
        return 0.0
    cores = case.hardware.nodes * case.hardware.cpus
    return case.placement.particles * case.shape.expert_bytes / (cores * CPU["moved_gb"] * GB)


def _rates(case: Case) -> tuple[float, float]:
    """Operations and bytes per second of one engine."""
    gpu = case.hardware.gpu
    if gpu is None or not case.on_gpu:
        return case.placement.cpus * CPU["gflops"] * GB, case.placement.cpus * CPU["bandwidth_gb"] * GB
    share = case.engine.ranks * case.placement.gpu_share
    arithmetic = share * gpu.tflops * 1e12 * EFFICIENCY["arithmetic"]
    return arithmetic, share * gpu.bandwidth_gb * GB * EFFICIENCY["bandwidth"]


def _install_rate(case: Case, memory: GpuMemory | None) -> float:
    """Bytes of parameters per second that an install writes, over all ranks of one engine."""
    gpu = case.hardware.gpu
    if memory is None or gpu is None:
        return case.placement.cpus * CPU["bandwidth_gb"] * GB / 3  # reads the copy, the product and writes the result
    from_device = memory.place == "device" and not case.shape.checkpoints
    each = INSTALL["device"] * gpu.bandwidth_gb * case.placement.gpu_share if from_device else INSTALL["host"]
    return case.engine.ranks * each * GB
