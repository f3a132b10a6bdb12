"""Who else is told how a run goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from evoswarm.config.base import Section


class TensorBoard(Section):
    """Event files in `tensorboard/` of the run directory: `tensorboard --logdir runs` shows all runs beside each
    other."""

    type: Literal["tensorboard"] = "tensorboard"


class Wandb(Section):
    """Weights & Biases. Its key is no part of a config: `wandb login`, or WANDB_API_KEY where the run executes."""

    type: Literal["wandb"] = "wandb"
    project: str = Field("evoswarm", min_length=1)
    """Name of the project."""
    entity: str | None = None
    """User or team; null: the default of the key."""
    group: str | None = None
    """Runs of one group are shown together; `evoswarm tune` takes its own name where this is null."""
    tags: list[str] = []
    """Labels of the run."""
    mode: Literal["online", "offline"] = "online"
    """offline: into `wandb/` of the run directory, without a network; `wandb sync` sends it later."""


LoggerConfig = Annotated[TensorBoard | Wandb, Field(discriminator="type")]
