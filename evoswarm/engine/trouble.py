"""What goes wrong inside of an engine, and whose it is to mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EngineDied(Exception):
    """This engine cannot answer any more; a new one may."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the machine."""
    text = str(error).lower()
    marks = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(m in text for m in marks)


@contextmanager
def mortal(name: str) -> Iterator[None]:
    """For code after whose unforeseen errors an engine cannot be trusted any more: they become `EngineDied`."""
    try:
        yield
    except Exception as error:  # libraries raise anything
        raise EngineDied(f"engine {name} died: {type(error).__name__}: {first_line(error)}") from error
