"""A run in this process, without Ray."""

from __future__ import annotations

from typing import Any

from evoswarm.config import RunConfig
from evoswarm.launch.execute import execute
from evoswarm.loop.callbacks import Callbacks


def run_locally(config: RunConfig, *, resume: str, callbacks: Callbacks, driver: int | None = None) -> dict[str, Any]:
    """See `evoswarm.run`; `driver` is the process on this machine that the run belongs to."""
    from evoswarm.backend.local import LocalBackend

    return execute(
        config,
        lambda settled, place, inputs: LocalBackend(
            settled, pool=inputs.pool, utility=inputs.utility, root=place.path, message=callbacks.message
        ),
        resume=resume,
        callbacks=callbacks,
        driver=driver,
    )
