"""What libraries print while an engine starts goes to a file, not to the user's terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
