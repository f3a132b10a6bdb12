"""Which packages the loggers of a config need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from evoswarm.config.loggers import LoggerConfig
from evoswarm.errors import UserError


def require(loggers: Sequence[LoggerConfig]) -> None:
    """Every logger's package is named as its type is, and so is evoswarm's extra.

    Raises:
        UserError: one is not installed.
    """
    for logger in loggers:
        if find_spec(logger.type) is None:
            raise UserError(
                f"loggers: {logger.type} is not installed; pip install 'evoswarm[{logger.type}]', or leave it out"
            )
