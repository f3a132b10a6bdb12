"""Memory and time of a run, from sizes alone. Pure arithmetic: starts nothing and reads nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from evoswarm.backend.ray.placement import Placement
from evoswarm.plan.case import Case
from evoswarm.plan.memory import GpuMemory, NodeMemory, gpu_memory, node_memory, running
from evoswarm.plan.problems import problems
from evoswarm.plan.seconds import EFFICIENCY, Seconds, seconds


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        placement: the actors.
        gpu: memory of a GPU; None if engines run on CPUs.
        node: memory of a node.
        max_model_len: longest sequence in tokens.
        running: sequences that an engine runs at once.
        moved_bytes: weights that leave particles in one generation.
        extras: evaluations that belong to no generation, by what they are for.
        seconds: estimated times.
        problems: why memory does not suffice, each with what to change; empty if it does.
        assumptions: what the figures assume.
        missing: what the nodes do not have for these actors, with what to change; None if they have everything. (A run
            waits for it, because nodes may still join.)
    """

    placement: Placement
    gpu: GpuMemory | None
    node: NodeMemory
    max_model_len: int
    running: int
    moved_bytes: int
    extras: dict[str, int]
    seconds: Seconds
    problems: list[str]
    assumptions: list[str]
    missing: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the run fits on the hardware."""
        return not self.problems and self.missing is None


def estimate(case: Case) -> Plan:
    """The plan of a run."""
    gpu = gpu_memory(case)
    extras: Counter[str] = Counter()
    for extra in case.extras:
        extras[extra.name] += extra.evaluations
    return Plan(
        placement=case.placement,
        gpu=gpu,
        node=node_memory(case, gpu),
        max_model_len=case.length,
        running=running(case, gpu),
        moved_bytes=case.placement.particles * case.shape.expert_bytes,
        extras=dict(extras),
        seconds=seconds(case, gpu),
        problems=problems(case),
        assumptions=_assumptions(case),
    )


def _assumptions(case: Case) -> list[str]:
    lines, gpu = [], case.hardware.gpu
    if gpu is not None:
        lines.append(
            f"a GPU like {gpu.name} ({gpu.tflops:g} TFLOP/s bf16, {gpu.bandwidth_gb:g} GB/s) at "
            f"{EFFICIENCY['arithmetic']:.0%} of its arithmetic and {EFFICIENCY['bandwidth']:.0%} of its bandwidth"
        )
    return [*lines, "every answer has max_new_tokens tokens, and every particle is evaluated on the whole split"]
