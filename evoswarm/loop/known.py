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


def digests(basis: Sequence[BasisVector], rows: np.ndarray) -> list[bytes]:
    """What each row [M, J] means: the same for the same terms, whatever else the basis holds."""
    hashes = [hashlib.blake2b(repr(vector).encode(), digest_size=8).digest() for vector in basis]
    names = np.frombuffer(b"".join(hashes), np.uint64)
    found = []
    for row in rows:
        terms = np.flatnonzero(row)
        terms = terms[np.argsort(names[terms])]
        found.append(hashlib.blake2b(names[terms].tobytes() + row[terms].tobytes(), digest_size=16).digest())
    return found


class Known:
    """The rows of finished generations, by digest, without what failed: that is tried again.

    What is on record is what would come out again, so a run's results are the same with and without it.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._places: dict[bytes, Key] = {}

    def restore(self, *, last: int) -> None:
        """Take in what is on record up to generation `last`."""
        for generation in range(last + 1):
            names = digests(*read_rows(self._directory, generation))
            for name, record in zip(names, read_lines(self._path(generation)), strict=True):
                if record["error"] is None:
                    self._places[name] = key_of(record)

    def add(self, measured: Mapping[bytes, Evaluation]) -> None:
        """Remember the evaluations of a generation that is on record."""
        self._places |= {name: evaluation.job.key for name, evaluation in measured.items()}

    def find(self, name: bytes, job: Job) -> Evaluation | None:
        """What an equal row came to, as the evaluation of `job`; None where there is none."""
        key = self._places.get(name)
        if key is None:
            return None
        records = read_lines(self._path(key[0]))
        return next(evaluation_of(job, record) for record in records if key_of(record) == key)

    def _path(self, generation: int) -> Path:
        return outcome_path(self._directory, f"gen_{generation:04}")
