"""The plan of a run over models: that of the largest one, because they are asked one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from evoswarm.backend.mix import Members
from evoswarm.config import RunConfig
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.estimate import Plan


def largest(config: RunConfig, inputs: Inputs, plan: Callable[[RunConfig, Inputs], Plan]) -> Plan:
    """The plan of the model that needs most memory, or of one that does not fit.

    Args:
        config: a run with `pool.kind: models`.
        inputs: of the run.
        plan: the plan of a run over one model.
    """
    members = list(Members(config, inputs.pool))
    plans = {member.name: plan(member.config, Inputs(member.pool(), inputs.utility)) for member in members}
    name = max(plans, key=lambda name: (not plans[name].fits, plans[name].node.total))
    line = (
        f"{len(plans)} models, asked one after another; this is {name}, the largest, and a generation is its pass over "
        "the validation split; all rows after that need no engine"
    )
    return replace(plans[name], assumptions=[*plans[name].assumptions, line])
