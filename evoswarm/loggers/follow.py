"""Sends a run's record to the configured loggers. A logger that fails never stops a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.config.loggers import LoggerConfig, TensorBoard
from evoswarm.loggers.series import Scalars, final_scalars, generation_scalars
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.records import read_generations, read_timings


class Logger(Protocol):
    """A destination for metrics. Every session of a run opens it again and replaces what it holds of that run."""

    def log(self, scalars: Scalars, *, generation: int) -> None:
        """Log one generation's metrics; generations arrive in order."""

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """Log the final result of a run."""

    def close(self) -> None:
        """End the session, whether or not the run is finished."""


def open_logger(logger: LoggerConfig, config: RunConfig, directory: RunDirectory) -> Logger:
    """The logger for one run.

    Raises:
        Exception: of any kind, if the logger's package or service does not work.
    """
    if isinstance(logger, TensorBoard):
        from evoswarm.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(config, directory)
    from evoswarm.loggers.wandb import WandbLogger

    return WandbLogger(logger, config, directory)


class Loggers:
    """Follows a run and logs its record on disk. Every session starts at generation 0.

    So a resumed run logs each step exactly once, even if the previous session was killed, and a logger that is added
    later gets the whole run.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        callbacks: Callbacks,
        *,
        open_logger: Callable[[LoggerConfig, RunConfig, RunDirectory], Logger] = open_logger,
    ) -> None:
        """`callbacks` receive events after the loggers do, and warnings about loggers that failed."""
        self._config, self._directory, self._inner = config, directory, callbacks
        self._open_logger = open_logger
        self._open: dict[str, Logger] = {}
        self._last = -1

    def __enter__(self) -> Loggers:
        for logger in self._config.loggers:
            with self._survived(logger.type):
                self._open[logger.type] = self._open_logger(logger, self._config, self._directory)
        self._catch_up()
        return self

    def __exit__(self, *exception: object) -> None:
        self._each(lambda logger: logger.close())

    @property
    def callbacks(self) -> Callbacks:
        """Pass these to the loop."""
        return self._inner.after(self._follow) if self._open else self._inner

    def finish(self, summary: dict[str, Any]) -> None:
        """Log the result of the run."""
        self._each(lambda logger: logger.finish(final_scalars(summary), generation=self._last))

    def _follow(self, event: Event) -> None:
        if event["kind"] == "generation":
            self._catch_up()

    def _catch_up(self) -> None:
        """Log the generations that this session has not logged yet."""
        if not self._open:
            return
        timings = {line["generation"]: line for line in read_timings(self._directory) if "phase" not in line}
        for record in read_generations(self._directory):
            generation = record["generation"]
            if generation > self._last and generation in timings:
                self._log(generation, generation_scalars(record, timings[generation]))

    def _log(self, generation: int, scalars: Scalars) -> None:
        self._each(lambda logger: logger.log(scalars, generation=generation))
        self._last = generation

    def _each(self, action: Callable[[Logger], None]) -> None:
        for name, logger in list(self._open.items()):
            with self._survived(name):
                action(logger)

    @contextlib.contextmanager
    def _survived(self, name: str) -> Iterator[None]:
        """Go on without a logger that fails."""
        try:
            yield
        except Exception as error:  # third-party packages raise anything
            self._open.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._inner.warning(f"logger {name} failed and is disabled for the rest of this session: {reason}")
