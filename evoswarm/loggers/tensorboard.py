"""TensorBoard's event files."""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from evoswarm.config import RunConfig
from evoswarm.loggers.series import Scalars, settings

METRICS = ("final/validation", "final/test")
"""What the page of hyper-parameters compares runs by."""


class TensorBoardLogger:
    """Writes `tensorboard/` of the run directory anew; a TensorBoard that is open forgets what it had read there."""

    def __init__(self, config: RunConfig) -> None:
        folder = config.run_dir / "tensorboard"
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=0)
        *begin, self._end = hparams(settings(config), dict.fromkeys(METRICS, 0.0))
        for summary in begin:
            self._writer.file_writer.add_summary(summary)

    def log(self, scalars: Scalars, *, generation: int) -> None:
        """Write and flush."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, generation)
        self._writer.flush()

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """Write and flush."""
        self.log(scalars, generation=generation)
        self._writer.file_writer.add_summary(self._end)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
