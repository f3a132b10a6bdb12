"""The machines of a plan, and how fast their GPUs are assumed to be."""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, by its data sheet.

    Attributes:
        name: as Ray's label `ray.io/accelerator-type` has it.
        memory_gb: 10^9 bytes.
        tflops: dense bf16 matrix arithmetic, 10^12 operations per second.
        bandwidth_gb: GB per second from its own memory.
    """

    name: str
    memory_gb: float
    tflops: float
    bandwidth_gb: float


GPUS = (
    Gpu("T4", 16, 65, 320),
    Gpu("L4", 24, 121, 300),
    Gpu("A10G", 24, 70, 600),
    Gpu("RTX-4090", 24, 165, 1008),
    Gpu("A100-40G", 40, 312, 1555),
    Gpu("L40S", 48, 362, 864),
    Gpu("A100-80G", 80, 312, 2039),
    Gpu("H100", 80, 989, 3350),
    Gpu("H200", 141, 989, 4800),
    Gpu("B200", 180, 2250, 8000),
)
"""Dense bf16 rates, without sparsity. T4 computes in fp16."""


@dataclass(frozen=True)
class Hardware:
    """Equal nodes.

    Attributes:
        nodes: number of nodes.
        gpus: GPUs per node.
        cpus: CPU cores per node.
        gpu: the kind of GPU; None without GPUs.
        node_memory_gb: host memory per node, 10^9 bytes.
    """

    nodes: int
    gpus: int
    cpus: int
    gpu: Gpu | None
    node_memory_gb: float


def gpu_with(memory_gb: float, name: str | None = None) -> Gpu:
    """The GPU of this name, or the one whose memory is nearest; with exactly this memory."""
    wanted = (name or "").upper().replace("NVIDIA-", "")
    named = [gpu for gpu in GPUS if wanted and wanted.startswith(gpu.name.upper())]
    like = named[0] if named else min(GPUS, key=lambda gpu: (abs(gpu.memory_gb - memory_gb), -gpu.tflops))
    return Gpu(like.name, memory_gb or like.memory_gb, like.tflops, like.bandwidth_gb)
