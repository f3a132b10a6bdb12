"""Small runs on the toy world, to fit routers on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evoswarm
from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.toy.config import target_config


def config_of(folder: Path, **data: Any) -> RunConfig:
    """A run of one generation over the toy experts; `data` changes `utility.data`."""
    config = target_config("office", algorithm="random_search")
    config["search"] |= {"population": 3, "max_generations": 1, "ensemble_size": 3}
    path = config["utility"]["data"]
    config["utility"]["data"] = {"path": path, "limit": 60, "test_limit": 60} | data
    return parse_config(config | {"name": "r", "output": str(folder), "backend": {"type": "local"}}, root=folder)


def run_in(folder: Path, callbacks: Callbacks = SILENT, **data: Any) -> Path:
    """Its directory after the run."""
    config = config_of(folder, **data)
    evoswarm.run(config, callbacks=callbacks)
    return config.run_dir
