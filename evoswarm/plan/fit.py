"""The check of memory at the start of a run. Imports torch and transformers only where there are GPUs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place_run
from evoswarm.config import RunConfig
from evoswarm.config.backend import RayBackend
from evoswarm.errors import UserError
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.hardware import GB, Hardware
from evoswarm.plan.inspect import hardware_of
from evoswarm.plan.text import duration
from evoswarm.weights.expert import checkpoint_files


def fitted(config: RunConfig, inputs: Inputs, message: Callable[[str], None]) -> RunConfig:
    """The config for the GPUs of this machine or of the connected cluster, before any engine starts.

    Unchanged without GPUs, and with GPUs whose memory is unknown.

    Raises:
        UserError: an engine cannot fit.
    """
    hardware = hardware_of(config.backend) if config.engine.has_model else None
    if hardware is None:
        return config
    if hardware.gpu is None:
        if not hardware.gpus and (problem := host_problem(config, hardware)):
            raise UserError(problem)
        return config
    from evoswarm.plan.run import plan_run

    plan = plan_run(config, inputs, hardware)
    message(f"estimate: {plan.placement.summary}; a generation takes about {duration(plan.seconds.generation)}")
    if plan.problems:
        raise UserError("; ".join(plan.problems))
    if plan.gpu is None or not plan.gpu.pristine:
        return config
    copy = plan.gpu.pristine / (hardware.gpu.memory_gb * GB)
    return config.with_(engine=config.engine.beside(copy, share=plan.placement.gpu_share))


def fit_here(config: RunConfig, inputs: Inputs) -> list[str]:
    """The check of `fitted` without a cluster, on this machine; returns what it says.

    Raises:
        UserError: an engine cannot fit.
    """
    if isinstance(config.backend, RayBackend) and (config.backend.address or os.environ.get("RAY_ADDRESS")):
        return ["the memory of the cluster is not checked here; `evoswarm plan` asks the cluster"]
    notices: list[str] = []
    fitted(config, inputs, notices.append)
    return notices


def host_problem(config: RunConfig, hardware: Hardware) -> str | None:
    """Whether the weights of a node's engines alone need more memory than it has, without GPUs."""
    size, scorers = _weight_bytes(config.model), 1
    if isinstance(config.backend, RayBackend):
        nodes = [Nodes("node", hardware.nodes, hardware.cpus, 0)]
        unlabeled = config.with_(backend=config.backend.with_(scorer_labels={}, particle_labels={}))
        scorers = math.ceil(place_run(unlabeled, nodes).scorers / hardware.nodes)
    need, have = scorers * size / GB, hardware.node_memory_gb
    if need <= have:
        return None
    change = "lower backend.scorers" if scorers > 1 and size / GB <= have else "use nodes with more memory, or GPUs"
    return f"{scorers} engines with weights of {size / GB:.1f} GB each do not fit into a node's {have:.1f} GB; {change}"


def _weight_bytes(model: str) -> int:
    """Size of the base model's files; 0 if it is not a folder here."""
    try:
        return sum(path.stat().st_size for path in checkpoint_files(Path(model)))
    except UserError:
        return 0
