"""A plan as lines for a person."""

from __future__ import annotations

from evoswarm.plan.estimate import Plan
from evoswarm.plan.hardware import GB, Hardware
from evoswarm.plan.memory import NodeMemory


def plan_lines(plan: Plan, hardware: Hardware) -> list[str]:
    """The plan in about ten lines."""
    gpus = f"{hardware.gpus} x {hardware.gpu.name} ({hardware.gpu.memory_gb:g} GB)" if hardware.gpu else "no GPU"
    machine = f"{hardware.nodes} node{'s' * (hardware.nodes > 1)} with {gpus}, {hardware.cpus} CPU cores"
    return [
        f"hardware    {machine}, {hardware.node_memory_gb:.0f} GB",
        f"placement   {plan.placement.summary}",
        *_gpu_lines(plan),
        _node_line(plan.node),
        f"sequences   up to {plan.running} at once, at most {plan.max_model_len} tokens long",
        f"generation  about {duration(plan.seconds.generation)}, {plan.moved_bytes / GB:.2f} GB of weights moved",
        _extras_line(plan),
        f"evaluation  install {duration(plan.seconds.install)}, prompts {duration(plan.seconds.read)}, answers "
        f"{duration(plan.seconds.write)}, on one scorer",
        *(f"assumes     {line}" for line in plan.assumptions),
        *(f"PROBLEM     {line}" for line in [*plan.problems, *([plan.missing] if plan.missing else [])]),
        "it fits" if plan.fits else "it does not fit",
    ]


def _node_line(node: NodeMemory) -> str:
    sizes = {"scorers": node.scorers, "particles": node.particles, "graders": node.graders}
    sizes |= {"object store": node.object_store, "other": node.other}
    parts = ", ".join(f"{name} {size / GB:.1f}" for name, size in sizes.items())
    return f"node        {node.total / GB:.1f} GB: {parts}; page cache up to {node.page_cache / GB:.1f}"


def _extras_line(plan: Plan) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in plan.extras.items())
    total = sum(plan.extras.values())
    return f"besides     about {duration(plan.seconds.extras)} for up to {total} evaluations: {counts}"


def _gpu_lines(plan: Plan) -> list[str]:
    gpu = plan.gpu
    if gpu is None:
        return []
    return [
        f"GPU         {gpu.total / GB:.1f} GB: weights {gpu.weights / GB:.1f}, pristine copy {gpu.pristine / GB:.1f} "
        f"({gpu.place}), adapters {gpu.adapters / GB:.1f}, overhead {gpu.overhead / GB:.1f}, "
        + (f"models that score answers {gpu.scoring / GB:.1f}, " if gpu.scoring else "")
        + f"KV cache {gpu.kv_cache / GB:.1f}"
    ]


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
