"""Memory of GPUs and nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from evoswarm.plan.case import Case
from evoswarm.plan.hardware import GB

OVERHEAD_GB = 2.5
"""Of a GPU engine: CUDA context, CUDA graphs and activations."""
PROCESS_GB = {"scorer": 4.0, "particle": 0.15, "grader": 1.0, "other": 4.0}
"""Host memory of one process without weights. other: Ray, the coordinator and the driver."""
FREE_SHARE = 0.2
"""`pristine: auto` keeps the copy on the GPU if this share of its memory stays free, and as many sequences fit."""


@dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU with one rank of a scorer, in bytes. `kv_cache` is what is left for keys and values.

    `place` says where the pristine copy is: on the device, or on the host (then `pristine` is 0). `scoring` is that of
    models that score answers on the same GPU, in a run without graders.
    """

    place: str
    weights: int
    pristine: int
    adapters: int
    overhead: int
    total: int
    scoring: int = 0

    @property
    def kv_cache(self) -> int:
        """Negative if the rest does not fit."""
        return self.total - self.weights - self.pristine - self.adapters - self.overhead - self.scoring


@dataclass(frozen=True)
class NodeMemory:
    """Host memory of one node in bytes. `page_cache` can be reclaimed and is not part of `total`."""

    scorers: int
    particles: int
    object_store: int
    other: int
    page_cache: int
    graders: int = 0

    @property
    def total(self) -> int:
        """What must fit."""
        return self.scorers + self.particles + self.graders + self.object_store + self.other


def gpu_memory(case: Case) -> GpuMemory | None:
    """Memory of one GPU; None if engines run on CPUs."""
    gpu, engine, shape = case.hardware.gpu, case.engine, case.shape
    if gpu is None or not case.on_gpu:
        return None
    total = int(gpu.memory_gb * GB * engine.memory_share * case.placement.gpu_share)
    copy = 0 if engine.adapters else shape.pristine_bytes // engine.ranks  # slots of adapters leave the base untouched
    adapters = engine.adapters * shape.expert_bytes // engine.ranks
    weights, overhead = shape.weight_bytes // engine.ranks, int(OVERHEAD_GB * GB)
    on_device = GpuMemory("device", weights, copy, adapters, overhead, total, case.beside)
    on_host = replace(on_device, place="host", pristine=0)
    if not copy:
        return on_device
    if engine.pristine != "auto":
        return on_device if engine.pristine == "device" else on_host
    roomy = on_device.kv_cache >= FREE_SHARE * gpu.memory_gb * GB
    return on_device if roomy and running(case, on_device) == running(case, on_host) else on_host


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
    counts = (placement.scorers, placement.particles, placement.graders)
    scorers, particles, graders = (ceil(n / case.hardware.nodes) for n in counts)
    models = 0 if case.grader_share else case.scoring
    weights = shape.weight_bytes if gpu is None else 0
    if gpu is not None and gpu.place == "host":
        weights = shape.pristine_bytes
    resident = 0 if placement.particle_gpus else shape.expert_bytes
    return NodeMemory(
        scorers=int(scorers * (PROCESS_GB["scorer"] * GB + weights)),
        particles=int(particles * (PROCESS_GB["particle"] * GB + resident)),
        object_store=(2 * particles + scorers) * shape.expert_bytes,
        other=int(PROCESS_GB["other"] * GB) + (case.beside if gpu is None else 0),
        page_cache=case.experts * shape.expert_bytes + shape.weight_bytes,
        graders=int(graders * (PROCESS_GB["grader"] * GB + models)),
    )
