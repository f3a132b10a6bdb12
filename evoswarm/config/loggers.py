"""Where else a run is logged."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from evoswarm.errors import UserError
from evoswarm.section import Section


class TensorBoard(Section):
    """Event files in `tensorboard/` of the run directory: `tensorboard --logdir runs` compares all runs."""

    type: Literal["tensorboard"] = "tensorboard"


class Wandb(Section):
    """Weights & Biases. Its key is not in the config: use `wandb login`, or set WANDB_API_KEY."""

    type: Literal["wandb"] = "wandb"
    project: str = Field("evoswarm", min_length=1)
    """Name of the project."""
    entity: str | None = None
    """User or team; null: the key's default."""
    group: str | None = None
    """Runs of one group are shown together; null: `evoswarm tune` uses its own name."""
    tags: list[str] = []
    """Tags of the run."""
    mode: Literal["online", "offline"] = "online"
    """offline: write to `wandb/` in the run directory; upload it later with `wandb sync`."""


LoggerConfig = TensorBoard | Wandb
LOGGERS: dict[str, type[TensorBoard | Wandb]] = {"tensorboard": TensorBoard, "wandb": Wandb}


def require(loggers: Sequence[LoggerConfig]) -> None:
    """Check that every logger's package is installed. The package and evoswarm's extra both have the logger's name.

    Raises:
        UserError: a package is missing.
    """
    for logger in loggers:
        if find_spec(logger.type) is None:
            raise UserError(
                f"loggers: {logger.type} is not installed; run pip install '.[{logger.type}]' in the checkout, or "
                "remove the logger"
            )
