"""Equal rows are never scored twice: where the outcomes of rows of earlier generations are recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from evoswarm.backend import Evaluation
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.journal import Key, Record, evaluation_of, outcome_path
from evoswarm.loop.names import generation_name
from evoswarm.loop.row_files import read_rows
from evoswarm.rows import BasisVector


def digests(basis: Sequence[BasisVector], rows: np.ndarray) -> list[bytes]:
    """The hash of each row [M, J]. It depends on the row's non-zero terms only, not on the rest of the basis."""
    hashes = [hashlib.blake2b(repr(vector).encode(), digest_size=8).digest() for vector in basis]
    names = np.frombuffer(b"".join(hashes), np.uint64)
    found = []
    for row in rows:
        terms = np.flatnonzero(row)
        terms = terms[np.argsort(names[terms])]
        found.append(hashlib.blake2b(names[terms].tobytes() + row[terms].tobytes(), digest_size=16).digest())
    return found


class RowCache:
    """The rows of finished generations by digest. Failed evaluations are left out, so they are retried.

    A recorded outcome is what a new evaluation would give, so a run has the same result with and without the cache.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._keys: dict[bytes, Key] = {}

    def restore(self, *, last: int) -> None:
        """Read the records up to generation `last`."""
        for generation in range(last + 1):
            names = digests(*read_rows(self._directory, generation))
            for name, record in zip(names, self._records(generation), strict=True):
                if record["error"] is None:
                    self._keys[name] = Key.of(record)

    def add(self, keys: Mapping[bytes, Key]) -> None:
        """Add the successful evaluations of a finished generation, by digest of their rows."""
        self._keys |= keys

    def find(self, digest: bytes) -> Evaluation | None:
        """The evaluation of an equal row; None if there is none."""
        key = self._keys.get(digest)
        if key is None:
            return None
        return next(evaluation_of(record) for record in self._records(key.generation) if Key.of(record) == key)

    def _records(self, generation: int) -> list[Record]:
        return read_lines(outcome_path(self._directory, generation_name(generation)))
