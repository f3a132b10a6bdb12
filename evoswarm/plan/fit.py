"""The check of memory at the start of a run. Imports torch and transformers only where there are GPUs."""

from __future__ import annotations

from collections.abc import Callable

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.inspect import hardware_of
from evoswarm.plan.text import duration


def require_fit(config: RunConfig, inputs: Inputs, message: Callable[[str], None]) -> None:
    """Check that engines fit on the GPUs of this machine or of the connected cluster, before any of them starts.

    Says nothing without GPUs, and of GPUs whose memory is unknown.

    Raises:
        UserError: an engine cannot fit.
    """
    hardware = hardware_of(config.backend) if config.engine.has_model else None
    if hardware is None or hardware.gpu is None:
        return
    from evoswarm.plan.run import plan_run

    plan = plan_run(config, inputs, hardware)
    message(f"estimate: {plan.placement.summary}; a generation takes about {duration(plan.seconds.generation)}")
    if plan.problems:
        raise UserError("; ".join(plan.problems))
