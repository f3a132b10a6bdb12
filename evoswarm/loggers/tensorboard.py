"""Logs to TensorBoard event files."""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from evoswarm.config import RunConfig
from evoswarm.loggers.series import Scalars, settings
from evoswarm.loop.directory import RunDirectory

METRICS = ("final/validation", "final/test")
"""The metrics by which the HParams page compares runs."""


class TensorBoardLogger:
    """Writes one event file with the whole run to `tensorboard/` in the run directory.

    The file starts with a purge at step 0, so TensorBoard drops what it read from the files of earlier sessions. Those
    files are kept: an open TensorBoard stops reading if the file it follows disappears.
    """

    def __init__(self, config: RunConfig, directory: RunDirectory) -> None:
        self._writer = SummaryWriter(str(directory.path / "tensorboard"), purge_step=0)
        *start, self._end = hparams(settings(config), dict.fromkeys(METRICS, 0.0))
        for summary in start:
            self._add(summary)

    def _add(self, summary: Any) -> None:
        assert self._writer.file_writer is not None
        self._writer.file_writer.add_summary(summary)

    def log(self, scalars: Scalars, *, generation: int) -> None:
        """Write the scalars and flush."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, generation)
        self._writer.flush()

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """Write the final scalars and the end of the HParams session."""
        self.log(scalars, generation=generation)
        self._add(self._end)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
