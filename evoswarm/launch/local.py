"""A run in this process, without Ray."""

from __future__ import annotations

from typing import Any

from evoswarm.config import RunConfig
from evoswarm.launch.execute import execute
from evoswarm.loop.evolution import Hooks


def run_locally(config: RunConfig, *, resume: str, hooks: Hooks) -> dict[str, Any]:
    """See `evoswarm.run`."""
    from evoswarm.backend.local import LocalBackend

    return execute(
        config,
        lambda settled, inputs: LocalBackend(settled, pool=inputs.pool, utility=inputs.utility, message=hooks.message),
        resume=resume,
        hooks=hooks,
    )
