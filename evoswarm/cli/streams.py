"""What goes to standard output, and how to resume an interrupted command."""

from __future__ import annotations

import contextlib
import shlex
import sys
from contextlib import AbstractContextManager
from typing import Any

from evoswarm.errors import Stopped


def results_only() -> AbstractContextManager[Any]:
    """Send what Ray and users' functions print to standard error: standard output is for the result only."""
    return contextlib.redirect_stdout(sys.stderr)


def rerun_to_resume() -> Stopped:
    """The error of a command that was interrupted and resumes if it is run again."""
    return Stopped(f"stopped; measurements are saved. To resume: {shlex.join(['evoswarm', *sys.argv[1:]])}")
