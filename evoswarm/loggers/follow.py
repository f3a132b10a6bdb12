"""Tells the loggers of a config what is on record. A logger that fails never stops a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from evoswarm.config import RunConfig
from evoswarm.config.loggers import LoggerConfig, TensorBoard
from evoswarm.loggers.series import Scalars, final_scalars, generation_scalars
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.evolution import Event, Hooks


class Logger(Protocol):
    """One place where numbers go, opened anew by every session of a run: it then replaces what it had of that run."""

    def log(self, scalars: Scalars, *, generation: int) -> None:
        """The numbers of a generation; generations come in order."""

    def finish(self, scalars: Scalars, *, generation: int) -> None:
        """The result, at the end of a run."""

    def close(self) -> None:
        """End the session, whether the run is finished or not."""


def open_logger(logger: LoggerConfig, config: RunConfig) -> Logger:
    """The logger for one run.

    Raises:
        Exception: of any kind; what it is about to use is not there.
    """
    if isinstance(logger, TensorBoard):
        from evoswarm.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(config)
    from evoswarm.loggers.wandb import WandbLogger

    return WandbLogger(logger, config)


class Loggers:
    """Follows a run. What is logged is the record on disk, from generation 0 on in every session.

    So a resumed run has each step once, whatever was lost or repeated when the one before was killed; and a logger that
    is added later has the whole run.
    """

    def __init__(self, config: RunConfig, directory: RunDirectory, hooks: Hooks) -> None:
        """
        Args:
            config: the run.
            directory: where its record is.
            hooks: who hears of events after the loggers, and of loggers that failed.
        """
        self._config, self._directory, self._inner = config, directory, hooks
        self._open: dict[str, Logger] | None = None
        self._last = -1

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._each(lambda logger: logger.close())

    @property
    def hooks(self) -> Hooks:
        """What the loop is given."""
        return replace(self._inner, notify=self._notify) if self._config.loggers else self._inner

    def finish(self, summary: dict[str, Any]) -> None:
        """Log the result of the run."""
        self._catch_up()
        self._each(lambda logger: logger.finish(final_scalars(summary), generation=self._last))

    def _notify(self, event: Event) -> None:
        if event["kind"] == "generation":
            self._catch_up()
        self._inner.notify(event)

    def _catch_up(self) -> None:
        """Log what is on record and was not logged in this session; the first time, open the loggers."""
        if self._open is None:
            self._open = {}
            for logger in self._config.loggers:
                self._attempt(logger.type, partial(self._add, logger))
        if not self._open:
            return
        timings = {line["generation"]: line for line in read_lines(self._directory.timings) if "phase" not in line}
        for record in read_lines(self._directory.generations):
            generation = record["generation"]
            if generation > self._last and generation in timings:
                self._log(generation, generation_scalars(record, timings[generation]))

    def _log(self, generation: int, scalars: Scalars) -> None:
        self._each(lambda logger: logger.log(scalars, generation=generation))
        self._last = generation

    def _add(self, logger: LoggerConfig) -> None:
        assert self._open is not None
        self._open[logger.type] = open_logger(logger, self._config)

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for name, logger in list((self._open or {}).items()):
            self._attempt(name, partial(tell, logger))

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # of any kind: they are other people's packages
            assert self._open is not None
            self._open.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._inner.warning(f"logger {name} failed and hears no more of this run: {reason}")
