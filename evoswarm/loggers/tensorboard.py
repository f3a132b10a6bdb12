"""TensorBoard's event files."""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from evoswarm.config import RunConfig
from evoswarm.loggers.series import Scalars, settings

METRICS = ("final/validation", "final/test")
"""What the page of hyper-parameters compares runs by."""


class TensorBoardLogger:
    """Writes a file into `tensorboard/` of the run directory, with the whole run.

    It begins with a restart at step 0, at which TensorBoard forgets what it has read in the files of earlier sessions.
    (These stay: a TensorBoard that is open reads no further once the file is gone that it was reading.)
    """

    def __init__(self, config: RunConfig) -> None:
        self._writer = SummaryWriter(str(config.run_dir / "tensorboard"), purge_step=0)
        *begin, self._end = hparams(settings(config), dict.fromkeys(METRICS, 0.0))
        for summary in begin:
            self._add(summary)

    def _add(self, summary: Any) -> None:
        assert self._writer.file_writer is not None
        self._writer.file_writer.add_summary(summary)

    def log(self, scalars: Scalars, *, generation: int) -> None:
        """Write and flush."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, generation)
        self._writer.flush()

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """Write and flush."""
        self.log(scalars, generation=generation)
        self._add(self._end)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
