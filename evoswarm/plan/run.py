"""The plan of a run, from its config, data, pool and base model."""

from __future__ import annotations

from dataclasses import replace

from evoswarm.backend.mix import asked_apart
from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place_run
from evoswarm.config import RunConfig
from evoswarm.config.backend import RayBackend
from evoswarm.engine.config import ModelEngine
from evoswarm.errors import UserError
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.case import Case, EngineSettings
from evoswarm.plan.estimate import Plan, estimate
from evoswarm.plan.extras import extras_of
from evoswarm.plan.hardware import Hardware
from evoswarm.plan.members import largest
from evoswarm.plan.read import shape_of, workload_of
from evoswarm.plan.scoring import scoring_bytes


def plan_run(config: RunConfig, inputs: Inputs, hardware: Hardware) -> Plan:
    """The plan of a run on some hardware.

    Raises:
        UserError: the model cannot be read, or the engine runs none.
    """
    if asked_apart(config, inputs.utility):
        return largest(config, inputs, lambda one, of: plan_run(one, of, hardware))
    engine = config.engine
    if inputs.pool.kind == "model":
        raise UserError(
            f"pool.kind {config.pool.kind}: models that run side by side are not planned; a short run shows"
        )
    if not isinstance(engine, ModelEngine):
        raise UserError(f"engine.type {engine.type} runs no model, so there is nothing to plan")
    backend = config.backend if isinstance(config.backend, RayBackend) else RayBackend(scorers=1)
    nodes = [Nodes("node", hardware.nodes, hardware.cpus, hardware.gpus)]
    # `hardware` is what has the labels, and without Ray there are no graders.
    placement = place_run(config.with_(backend=backend.unlabeled()), nodes, graders=backend is config.backend)
    trust = engine.trust_remote_code
    tokenizer = engine.tokenizer(model=config.model, experts=inputs.pool.experts, utility=inputs.utility)
    workload = workload_of(inputs.utility, tokenizer)
    shape = shape_of(config.model, inputs.pool, dtype=engine.dtype, trust_remote_code=trust)
    scoring = scoring_bytes(config.utility, config.root)
    settings = EngineSettings.of(engine)
    extras = extras_of(config, inputs, tokenizer)
    plan = estimate(Case(shape, workload, len(inputs.pool.names), settings, placement, hardware, scoring, extras))
    lack = (
        missing(placement, nodes) if isinstance(config.backend, RayBackend) else _missing_here(engine.ranks, hardware)
    )
    return replace(plan, missing=lack)


def _missing_here(ranks: int, hardware: Hardware) -> str | None:
    """What this machine does not have for an engine in this process. Without GPUs, ranks are processes."""
    if not hardware.gpus or ranks <= hardware.gpus:
        return None
    return (
        f"an engine of {ranks} ranks takes {ranks} GPUs, this machine has {hardware.gpus}; lower "
        "engine.args.tensor_parallel_size"
    )
