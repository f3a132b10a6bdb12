"""The machines of a plan, and how fast their GPUs are assumed to be."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evoswarm.errors import UserError

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


def described(
    found: Hardware, *, gpus: int | None, nodes: int | None, gpu_memory_gb: float | None, node_memory_gb: float | None
) -> Hardware:
    """The hardware that a user describes. Of GPU nodes that are only described, CPUs and memory are assumed: 8 cores
    and twice the GPU's memory for each GPU.

    Args:
        found: what there is; it counts where nothing is described.
        gpus: GPUs per node.
        nodes: number of nodes.
        gpu_memory_gb: memory of a GPU, 10^9 bytes.
        node_memory_gb: memory of a node, 10^9 bytes.

    Raises:
        UserError: GPUs of unknown memory.
    """
    count = found.gpus if gpus is None else gpus
    gpu = found.gpu if gpu_memory_gb is None else gpu_with(gpu_memory_gb)
    if count and gpu is None:
        raise UserError("the memory of a GPU is not known; give it in GB, for example --gpu-memory 80")
    if gpus and gpu is not None:
        host = max(found.node_memory_gb, 2 * gpus * gpu.memory_gb)
        found = replace(found, cpus=max(found.cpus, 8 * gpus), node_memory_gb=host)
    return replace(
        found,
        nodes=nodes or found.nodes,
        gpus=count,
        gpu=gpu if count else None,
        node_memory_gb=node_memory_gb or found.node_memory_gb,
    )
