"""The page "How big is it", computed by `evoswarm plan`'s own estimate. `docs/generate.py` writes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place
from evoswarm.config.backend import RayBackend
from evoswarm.engine import VllmEngine
from evoswarm.plan.case import Case, EngineSettings
from evoswarm.plan.estimate import Plan, estimate
from evoswarm.plan.hardware import GB, Hardware, gpu_with
from evoswarm.plan.sizes import Shape, Workload

EXPERTS, RANK = 10, 16
WORK = Workload(examples=200, prompt_tokens=200 * 256, longest=512 + 256, new_tokens=256)


@dataclass(frozen=True)
class Model:
    """Dimensions of a decoder with gated MLPs: hidden, layers, query and key heads, their size, MLP, vocabulary."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int
    tied: bool = False

    @property
    def shape(self) -> Shape:
        """The model in bf16 and a LoRA of all its linear layers."""
        query, key = self.heads * self.head_size, self.kv_heads * self.head_size
        hidden, inner = self.hidden, self.inner
        sizes = [(hidden, query), *[(hidden, key)] * 2, (query, hidden), *[(hidden, inner)] * 2, (inner, hidden)]
        linear = self.layers * sum(a * b for a, b in sizes)
        embeddings = self.vocabulary * hidden * (1 if self.tied else 2)
        return Shape(
            parameters=linear + embeddings,
            layers=self.layers,
            adapted=linear,
            expert_bytes=2 * RANK * self.layers * sum(a + b for a, b in sizes),
            bytes_per_parameter=2,
            kv_bytes_per_token=4 * self.layers * key,
            longest=None,
        )


MODELS = (
    Model("Qwen2.5-0.5B", 896, 24, 14, 2, 64, 4864, 151_936, tied=True),
    Model("gemma-2-2b", 2304, 26, 8, 4, 256, 9216, 256_000, tied=True),
    Model("Qwen2.5-7B", 3584, 28, 28, 4, 128, 18_944, 152_064),
    Model("Llama-3.1-70B", 8192, 80, 64, 8, 128, 28_672, 128_256),
)
MACHINES = {
    "one 24 GB card": Hardware(1, 1, 16, gpu_with(24, "RTX-4090"), 64),
    "one H100": Hardware(1, 1, 16, gpu_with(80, "H100"), 128),
    "8 x H100": Hardware(1, 8, 128, gpu_with(80, "H100"), 1024),
    "4 x 8 x H100": Hardware(4, 8, 128, gpu_with(80, "H100"), 1024),
}
PARTICLES = (7, 20, 40)


def plan_of(shape: Shape, machine: Hardware, *, particles: int = 20, ranks: int = 1) -> Plan:
    """The plan of a run with default settings."""
    engine = VllmEngine(args={"tensor_parallel_size": ranks})
    nodes = [Nodes("node", machine.nodes, machine.cpus, machine.gpus)]
    placement = place(RayBackend(), nodes, particles=particles, threads=1, ranks=ranks)
    return estimate(Case(shape, WORK, EXPERTS, EngineSettings.of(engine), placement, machine))


def sizing_page(generated: str) -> str:
    """The page."""
    return "\n\n".join([generated, *_introduction(), _sizes(), "## Memory and time", _fits(), *_notes()]) + "\n"


def placement_table() -> str:
    """Which actor gets what by default, for the placement guide."""
    lines = ["| cluster | particles | placement with default settings |", "|---|---|---|"]
    for name, machine in list(MACHINES.items())[1:]:
        for particles in PARTICLES:
            plan = plan_of(MODELS[1].shape, machine, particles=particles)
            lines.append(f"| {name} | {particles} | {plan.placement.summary} |")
    plan = plan_of(MODELS[1].shape, replace(MACHINES["4 x 8 x H100"], nodes=10), particles=40)
    lines.append(f"| 10 x 8 x H100 | 40 | {plan.placement.summary} |")
    return "\n".join(lines)


def _introduction() -> list[str]:
    return [
        "# How big is it",
        f"Memory and time of a run with {EXPERTS} LoRA experts of rank {RANK} on all linear layers in bf16, "
        f"20 particles, {WORK.examples} validation examples of 256 prompt tokens (512 at most) and "
        f"{WORK.new_tokens} new tokens, vLLM. `evoswarm plan CONFIG` gives the same figures for your own run, "
        "for example with `--gpus 8 --nodes 4 --gpu-memory 80`. These are estimates; no such run was measured.",
    ]


def _sizes() -> str:
    lines = ["| model | weights | adapted weights (pristine copy) | one expert | KV cache per 1,000 tokens |"]
    lines += ["|---|---|---|---|---|"]
    for model in MODELS:
        shape = model.shape
        lines.append(
            f"| {model.name} | {shape.weight_bytes / GB:.1f} GB | {shape.pristine_bytes / GB:.1f} GB | "
            f"{shape.expert_bytes / 1e6:.0f} MB | {shape.kv_bytes_per_token / 1e3:.0f} MB |"
        )
    return "\n".join(lines)


def _fits() -> str:
    lines = ["| model | machine | split over | pristine copy | KV cache per GPU | host memory per node | generation |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for model in MODELS:
        for name, machine in MACHINES.items():
            lines.append(f"| {model.name} | {name} | {_row(model.shape, machine)} |")
    return "\n".join(lines)


def _row(shape: Shape, machine: Hardware) -> str:
    """The smallest split that fits."""
    splits = [ranks for ranks in (1, 2, 4, 8) if ranks <= machine.gpus]
    plans = {ranks: plan_of(shape, machine, ranks=ranks) for ranks in splits}
    fitting = next((ranks for ranks, plan in plans.items() if plan.fits), None)
    if fitting is None:
        return "does not fit | | | |"
    plan = plans[fitting]
    assert plan.gpu is not None
    seconds = plan.seconds.generation
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    split = "1 GPU" if fitting == 1 else f"{fitting} GPUs"
    return f"{split} | {plan.gpu.place} | {plan.gpu.kv_cache / GB:.0f} GB | {plan.node.total / GB:.0f} GB | {time}"


def _notes() -> list[str]:
    assumptions = plan_of(MODELS[0].shape, MACHINES["one H100"]).assumptions
    return [
        "A split over several GPUs is `engine.args.tensor_parallel_size`. pristine copy: where the engine keeps the "
        "base's values of the weights that experts change (`engine.pristine`).",
        "Assumptions: " + "; ".join(assumptions) + ".",
    ]
