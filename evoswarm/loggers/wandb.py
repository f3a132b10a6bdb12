"""Logs to Weights & Biases, online or offline."""

from __future__ import annotations

import secrets
import shutil

import wandb

from evoswarm.config import RunConfig
from evoswarm.config.loggers import Wandb
from evoswarm.errors import UserError
from evoswarm.loggers.series import Scalars
from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.expert import read_json

ID_FILE = "wandb.json"


class WandbLogger:
    """One W&B run for all sessions of a run.

    The id is drawn once and stored in the run directory. Online, W&B skips the steps that it already has. Offline, the
    previous session's folder is replaced, because the new one holds the whole run.
    """

    def __init__(self, logger: Wandb, config: RunConfig, directory: RunDirectory) -> None:
        """
        Raises:
            UserError: the mode is online and no API key is set.
        """
        if logger.mode == "online" and not wandb.login(prompt=False):
            raise UserError("no API key; run `wandb login`, set WANDB_API_KEY, or use mode: offline")
        if not (directory.path / ID_FILE).exists():
            directory.write_json(ID_FILE, {"id": secrets.token_hex(4)})
        identity = read_json(directory.path / ID_FILE)["id"]
        for folder in directory.path.glob(f"wandb/offline-run-*-{identity}"):
            shutil.rmtree(folder)
        self._run = wandb.init(
            project=logger.project,
            entity=logger.entity,
            group=logger.group,
            tags=logger.tags,
            mode=logger.mode,
            name=config.name,
            id=identity,
            resume="allow",
            reinit="create_new",
            dir=directory.path,
            config=config.model_dump(mode="json", exclude={"loggers"}),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
        )

    def log(self, scalars: Scalars, *, generation: int) -> None:
        """Log one step of W&B's history."""
        self._run.log(scalars, step=generation)

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """Update the W&B run's summary."""
        self._run.summary.update(scalars)

    def close(self) -> None:
        """Wait until everything is written and, if online, uploaded."""
        self._run.finish()
