"""The engine settings of a run, where several are possible: measured once, recorded, and kept when it is resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs
from evoswarm.weights.expert import read_json

FILE = "engine.json"
Measure = Callable[[Sequence[RunConfig], Inputs], list[float]]
"""Seconds per particle of each config."""


def with_engine(
    config: RunConfig,
    inputs: Inputs,
    directory: RunDirectory,
    *,
    fitted: RunConfig,
    measure: Measure,
    message: Callable[[str], None],
) -> RunConfig:
    """The config with final engine settings.

    Args:
        config: as the user wrote it.
        inputs: of the run.
        directory: of the run.
        fitted: the config with room for the copies that merging needs. Adapters that are not merged need none.
        measure: measures engine settings where the backend will run.
        message: tells the user.
    """
    adapters = inputs.pool.kind == "adapter"
    roomy, plain = (one.engine.candidates(adapters=adapters) for one in (fitted, config))
    engines = [*roomy, *(engine for engine in plain if engine.multi_adapter)]
    configs = {str(engine.mode): config.with_(engine=engine) for engine in engines}
    if len(configs) == 1:
        return configs.popitem()[1]
    mode = _recorded(directory)
    if mode not in configs:
        message(f"measuring which engine mode is faster: {' or '.join(configs)}")
        seconds = dict(zip(configs, measure(list(configs.values()), inputs), strict=True))
        mode = min(seconds, key=seconds.__getitem__)
        known = {name: value for name, value in seconds.items() if math.isfinite(value)}
        directory.write_json(FILE, {"mode": mode, "seconds_per_particle": known})
        figures = ", ".join(f"{name} {value:.3g} s" for name, value in known.items())
        message(f"engine mode {mode} (per particle: {figures or 'nothing could be measured'})")
    return configs[mode]


def _recorded(directory: RunDirectory) -> str:
    try:
        return str(read_json(directory.path / FILE).get("mode"))
    except (UserError, OSError):
        return ""
