"""What is checked before a port writes anything, and the record by which a rerun resumes it."""

from __future__ import annotations

import numpy as np

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import require_free, search_at, written_config
from evoswarm.loop.inputs import changed_keys
from evoswarm.port.config import PortConfig
from evoswarm.port.pool import require_same_shapes
from evoswarm.utility import Utility
from evoswarm.weights.expert import read_json
from evoswarm.weights.folders import find_experts
from evoswarm.weights.move import require_same_vocabulary

_MEASURED = ("model", "pool", "utility")
"""Sections of the config on which the recorded results of a run depend."""
REQUEST = "request.json"


def begin(config: PortConfig, before: RunConfig, after: RunConfig, utility: Utility) -> None:
    """Check that the run can be ported, and claim the output folder; one of the same port is resumed.

    Raises:
        UserError: something does not fit, or the output folder has something else.
    """
    if not config.scales or any(not np.isfinite(scale) or scale == 0 for scale in config.scales):
        raise UserError("--scale: give finite numbers other than 0")
    changed = changed_keys(before, written_config(config.run_dir))
    for key in (key for key in changed if key.split(".")[0] in _MEASURED):
        raise UserError(f"--set {key}: the run was measured with another value, so nothing could be compared; omit it")
    require_same_vocabulary(before.model, after.model)
    directory = RunDirectory(config.run_dir)
    if directory.inputs.exists() and read_json(directory.inputs).get("data") != utility.sha256:
        raise UserError(
            f"{config.run_dir}: the data has changed since the run; restore it, so that its results can be compared"
        )
    generation = None if directory.finished else search_at(config.run_dir, None).generation
    experts = find_experts(before.pool.experts, model=before.model).folders if generation is not None else {}
    require_same_shapes([*experts.values()] or [directory.best], before.engine, old=before.model, new=after.model)
    _claim(
        config,
        {
            "run": str(config.run_dir.resolve()),
            "generation": generation,
            "old_model": before.model,
            "new_model": after.model,
            "scales": list(config.scales),
            "set": list(config.overrides),
        },
    )


def _claim(config: PortConfig, request: dict[str, object]) -> None:
    path = config.output / REQUEST
    if path.exists() and read_json(path) == request:
        return
    require_free(config.output)
    RunDirectory(config.output).write_json(path.name, request)
