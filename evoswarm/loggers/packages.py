"""Checks that the configured loggers' packages are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from evoswarm.config.loggers import LoggerConfig
from evoswarm.errors import UserError


def require(loggers: Sequence[LoggerConfig]) -> None:
    """Check that every logger's package is installed. The package and evoswarm's extra both have the logger's name.

    Raises:
        UserError: a package is missing.
    """
    for logger in loggers:
        if find_spec(logger.type) is None:
            raise UserError(
                f"loggers: {logger.type} is not installed; pip install 'evoswarm[{logger.type}]', or remove the logger"
            )
