"""Which rows were measured before, and where their outcomes lie: equal rows are never scored twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evoswarm.backend import Evaluation, Job
from evoswarm.backend.base import Key
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.outcomes import evaluation_of, key_of, outcome_path, read_rows
from evoswarm.rows import BasisVector


def digest(row: np.ndarray) -> bytes:
    """Of a row [J]; the same for a row with more columns if these are zero."""
    terms = np.flatnonzero(row)
    return hashlib.blake2b(terms.tobytes() + row[terms].tobytes(), digest_size=16).digest()


class Known:
    """The rows of finished generations since the last re-basing, by digest, without what failed: that is tried again.

    What is on record is what would come out again, so a run's results are the same with and without it.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._places: dict[bytes, Key] = {}

    def restore(self, basis: Sequence[BasisVector], *, last: int) -> None:
        """Take in what is on record up to generation `last`."""
        for generation in range(last + 1):
            columns, rows = read_rows(self._directory, generation)
            if list(basis[: len(columns)]) != columns:
                continue
            for row, record in zip(rows, read_lines(self._path(generation)), strict=True):
                if record["error"] is None:
                    self._places.setdefault(digest(row), key_of(record))

    def add(self, measured: Mapping[bytes, Evaluation]) -> None:
        """Remember the evaluations of a generation that is on record."""
        for name, evaluation in measured.items():
            self._places.setdefault(name, evaluation.job.key)

    def find(self, name: bytes, job: Job) -> Evaluation | None:
        """What an equal row came to, as the evaluation of `job`."""
        key = self._places.get(name)
        if key is None:
            return None
        records = read_lines(self._path(key[0]))
        return next(evaluation_of(job, record) for record in records if key_of(record) == key)

    def clear(self) -> None:
        """The columns mean something else now."""
        self._places.clear()

    def _path(self, generation: int) -> Path:
        return outcome_path(self._directory, f"gen_{generation:04}")
