"""What libraries print while an engine starts goes to a file, not to the user's terminal."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = "evoswarm-vllm"
"""Name of vLLM's log."""


@contextmanager
def output_to_log(name: str) -> Iterator[Path]:
    """Send what this process writes to its standard output and error to a file, also from native code and children.

    Args:
        name: of the file in the folder for temporary files.

    Yields:
        Path of the file.
    """
    path = Path(tempfile.gettempdir()) / f"{name}-{os.getpid()}.log"
    _flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with path.open("ab") as file:
            for number in kept:
                os.dup2(file.fileno(), number)
        yield path
    finally:
        _flush()
        for number, descriptor in kept.items():
            os.dup2(descriptor, number)
            os.close(descriptor)


def loggers_to_log(name: str, path: Path) -> None:
    """Send a library's own log to the file for good: it also warns later, when output goes to the terminal again."""
    for handler in logging.getLogger(name).handlers:
        if type(handler) is logging.StreamHandler:  # those that write to files or memory stay as they are
            handler.setStream(path.open("a", encoding="utf-8"))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
