"""The check of memory at the start of a run. Imports torch and transformers only where there are GPUs."""

from __future__ import annotations

from collections.abc import Callable

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.hardware import GB
from evoswarm.plan.inspect import hardware_of
from evoswarm.plan.text import duration


def fitted(config: RunConfig, inputs: Inputs, message: Callable[[str], None]) -> RunConfig:
    """The config for the GPUs of this machine or of the connected cluster, before any engine starts.

    Unchanged without GPUs, and with GPUs whose memory is unknown.

    Raises:
        UserError: an engine cannot fit.
    """
    hardware = hardware_of(config.backend) if config.engine.has_model else None
    if hardware is None or hardware.gpu is None:
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
