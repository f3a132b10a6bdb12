"""Weights & Biases, with or without a network."""

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
    """A run of W&B, the same one in every session of a run.

    Its id is drawn once and kept in the run directory. Online, W&B itself passes over steps that it has; offline, the
    folder of the session before is replaced, for it holds nothing else.
    """

    def __init__(self, logger: Wandb, config: RunConfig) -> None:
        """
        Raises:
            UserError: it is to be online, and there is no key.
        """
        if logger.mode == "online" and not wandb.login(prompt=False):
            raise UserError("there is no key; `wandb login`, set WANDB_API_KEY, or mode: offline")
        directory = RunDirectory(config.run_dir)
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
        """One line of W&B's history."""
        self._run.log(scalars, step=generation)

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """The run's summary."""
        self._run.summary.update(scalars)

    def close(self) -> None:
        """Wait until everything is written, online sent."""
        self._run.finish()
