"""Runs lm-eval and code of tasks so that this process stays as it was."""

from __future__ import annotations

import io
import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np

from evoswarm.errors import not_installed


@contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing is printed, and the environment and the global random streams are afterwards what they were.

    lm-eval sets a variable of the environment when it is imported, and prints progress bars. Code of tasks can do more.
    """
    environment, streams = dict(os.environ), (random.getstate(), np.random.get_state())
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        random.setstate(streams[0])
        np.random.set_state(streams[1])


def require() -> None:
    """
    Raises:
        UserError: lm-eval is not installed.
    """
    with undisturbed():
        try:
            import lm_eval.tasks  # noqa: F401
        except ImportError:
            raise not_installed("utility.type lm_eval", "lm_eval", extra="lm-eval") from None
