"""One generation as it comes to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from evoswarm.backend import Backend, Evaluation
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.outcomes import Journal


class Window:
    """What one generation has measured so far, and since when.

    Attributes:
        journal: its outcomes on disk.
        measured: its evaluations, in the order of its rows.
        rows: blocks of rows [*, J].
        new: what succeeded, by the digest of its row.
    """

    def __init__(self, directory: RunDirectory, generation: int, backend: Backend, examples: int) -> None:
        """
        Args:
            directory: the run directory.
            generation: its number.
            backend: measures.
            examples: examples scored before it.
        """
        self.generation = generation
        self.journal = Journal(directory, f"gen_{generation:04}")
        self.measured: list[Evaluation] = []
        self.rows: list[np.ndarray] = []
        self.new: dict[bytes, Evaluation] = {}
        self._seconds, self._examples = backend.seconds, examples
        self._start = time.perf_counter(), backend.seconds.scoring, backend.seconds.moving
        self._searching = 0.0

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Around what the search itself does, to know how long that takes."""
        mark = time.perf_counter()
        yield
        self._searching += time.perf_counter() - mark

    def timing(self, examples: int) -> dict[str, Any]:
        """The generation's line of `timings.jsonl`, where so many examples have been scored by now."""
        return {
            "generation": self.generation,
            "examples": examples - self._examples,
            "seconds": {
                "total": time.perf_counter() - self._start[0],
                "scoring": self._seconds.scoring - self._start[1],
                "moving": self._seconds.moving - self._start[2],
                "search": self._searching,
            },
        }
