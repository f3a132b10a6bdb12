"""The check of memory at the start of a run. Imports torch and transformers only where there are GPUs."""

from __future__ import annotations

import math
import os
from pathlib import Path

from evoswarm.backend.mix import Members, asked_apart
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place_run
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.backend import RayBackend
from evoswarm.errors import UserError
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.hardware import GB, Hardware
from evoswarm.plan.inspect import connected, hardware_of
from evoswarm.plan.scoring import scoring_bytes
from evoswarm.plan.text import duration
from evoswarm.weights.expert import checkpoint_files


def fitted(config: RunConfig, inputs: Inputs, callbacks: Callbacks) -> RunConfig:
    """The config for the GPUs of this machine or of the connected cluster, before any engine starts.

    Unchanged without GPUs, and with GPUs whose memory is unknown.

    Raises:
        UserError: an engine cannot fit.
    """
    hardware = hardware_of(config.backend) if config.engine.has_model else None
    if hardware is None:
        return config
    if hardware.gpu is None:
        if not hardware.gpus:
            check_host(config, hardware, callbacks)
        return config
    if inputs.pool.kind == "model" and not asked_apart(config, inputs.utility):
        return config
    from evoswarm.plan.run import plan_run

    plan = plan_run(config, inputs, hardware)
    callbacks.message(
        f"estimate: {plan.placement.summary}; a generation takes about {duration(plan.seconds.generation)}"
    )
    lack = [plan.missing] if plan.missing and not _may_grow(config) else []
    if problems := [*plan.problems, *lack]:
        raise UserError("; ".join(problems))
    if plan.gpu is None or not plan.gpu.pristine:
        return config
    copy = plan.gpu.pristine / (hardware.gpu.memory_gb * GB)
    return config.with_(engine=config.engine.beside(copy, share=plan.placement.gpu_share))


def fit_here(config: RunConfig, inputs: Inputs) -> list[str]:
    """The check of `fitted` without a cluster, on this machine; returns what it says.

    Raises:
        UserError: an engine cannot fit.
    """
    if asked_apart(config, inputs.utility):
        members = Members(config, inputs.pool)
        found = [line for m in members for line in fit_here(m.config, Inputs(m.pool(), inputs.utility))]
        return list(dict.fromkeys(found))
    if _may_grow(config):
        return ["the memory of the cluster is not checked here; `evoswarm plan` asks the cluster"]
    notices: list[str] = []
    fitted(config, inputs, Callbacks(lambda event: notices.append(event["text"])))
    return notices


def _may_grow(config: RunConfig) -> bool:
    """Whether nodes may join the cluster of the run. It is not asked before the run has joined it."""
    if not isinstance(config.backend, RayBackend):
        return False
    address = config.backend.address or os.environ.get("RAY_ADDRESS")
    return connected() or address not in (None, "local")


def check_host(config: RunConfig, hardware: Hardware, callbacks: Callbacks) -> None:
    """Check whether a node without GPUs holds the weights of its engines.

    Engines share the weights that experts do not change, so several that do not fit are only reported.

    Raises:
        UserError: not even one fits.
    """
    size, scorers, graders, have = _weight_bytes(config.model) / GB, 1, 1, hardware.node_memory_gb
    if isinstance(config.backend, RayBackend):
        nodes = [Nodes("node", hardware.nodes, hardware.cpus, 0)]
        unlabeled = config.with_(backend=config.backend.unlabeled())
        placement = place_run(unlabeled, nodes)
        scorers, graders = (math.ceil(n / hardware.nodes) for n in (placement.scorers, placement.graders))
    scoring = graders * scoring_bytes(config.utility, config.root) / GB
    if size + scoring > have:
        more = f", the models that score answers {scoring:.1f} GB," if scoring else ""
        raise UserError(
            f"the base model has {size:.1f} GB{more} and a node {have:.1f} GB of memory; use nodes with more memory, "
            "or GPUs"
        )
    if scorers * size > have:
        callbacks.warning(
            f"{scorers} engines with weights of {size:.1f} GB may need up to {scorers * size:.1f} GB and a node has "
            f"{have:.1f} GB of memory; if they are killed, lower backend.scorers"
        )


def _weight_bytes(model: str) -> int:
    """Size of the base model's files; 0 if it is not a folder here."""
    try:
        return sum(path.stat().st_size for path in checkpoint_files(Path(model)))
    except UserError:
        return 0
