"""Errors of engines and of the libraries behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evoswarm.errors import first_line


class EngineDied(Exception):
    """This engine cannot answer any more; a new one may."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that GPU or host memory ran out."""
    text = str(error).lower()
    marks = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(m in text for m in marks)


@contextmanager
def dies_on_error(name: str) -> Iterator[None]:
    """Turn any unexpected error into `EngineDied`: after it, the engine named `name` cannot be trusted."""
    try:
        yield
    except Exception as error:  # libraries raise anything
        raise EngineDied(f"engine {name} died: {type(error).__name__}: {first_line(error)}") from error
