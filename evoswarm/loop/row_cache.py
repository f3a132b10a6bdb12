"""The rows that each generation measured, in one file per generation. Equal rows are never scored twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evoswarm.backend import Evaluation
from evoswarm.loop.directory import RunDirectory, generation_name
from evoswarm.loop.journal import Key, evaluation_of, outcome_path
from evoswarm.loop.records import Record, read_outcomes
from evoswarm.rows import BasisVector, Row, basis_from_dict, basis_to_dict


def rows_path(directory: RunDirectory, generation: int) -> Path:
    """The file of the rows that a generation measured."""
    return directory.outcomes / f"{generation_name(generation)}.rows.safetensors"


def save_rows(
    directory: RunDirectory, generation: int, basis: Sequence[BasisVector], rows: Sequence[np.ndarray]
) -> None:
    """Write the rows of a generation in the order of its outcomes. Earlier blocks may have fewer columns."""
    padded = [np.pad(block, ((0, 0), (0, len(basis) - block.shape[1]))) for block in rows]
    metadata = {"basis": json.dumps([basis_to_dict(vector) for vector in basis])}
    path = rows_path(directory, generation).relative_to(directory.path)
    directory.write(path, save({"rows": np.concatenate(padded)}, metadata))


def read_rows(directory: RunDirectory, generation: int) -> tuple[list[BasisVector], np.ndarray]:
    """Basis and rows [M, J] of a generation, in the order of its outcomes.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    path = rows_path(directory, generation)
    try:
        with safe_open(path, framework="numpy") as file:
            basis = [basis_from_dict(entry) for entry in json.loads(file.metadata()["basis"])]
            rows = file.get_tensor("rows")
    except (SafetensorError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    if rows.shape[1:] != (len(basis),):
        raise ValueError(f"{path}: damaged (rows {rows.shape} for {len(basis)} basis vectors)")
    return basis, rows


def is_recorded(directory: RunDirectory, generation: int) -> bool:
    """Whether all outcomes and rows of a finished generation can be read."""
    try:
        _, rows = read_rows(directory, generation)
    except (OSError, ValueError):
        return False
    return len(rows) == len(read_outcomes(outcome_path(directory, generation_name(generation))))


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


def digest_of(row: Row) -> bytes:
    """The hash of one row, as in `digests`."""
    basis, coefficients = [vector for vector, _ in row.terms], [value for _, value in row.terms]
    return digests(basis, np.array([coefficients]))[0]


class RowCache:
    """The rows of finished generations by digest. Failed evaluations are left out, so they are retried.

    A recorded outcome is what a new evaluation would give, so a run has the same result with and without the cache.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._keys: dict[bytes, Key] = {}
        self._given: dict[bytes, Evaluation] = {}

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

    def give(self, row: Row, evaluation: Evaluation) -> None:
        """Add the successful evaluation of a row that was measured before the search."""
        self._given[digest_of(row)] = evaluation

    def find(self, digest: bytes) -> Evaluation | None:
        """The evaluation of an equal row; None if there is none."""
        if digest in self._given:
            return self._given[digest]
        key = self._keys.get(digest)
        if key is None:
            return None
        return next(evaluation_of(record) for record in self._records(key.generation) if Key.of(record) == key)

    def _records(self, generation: int) -> list[Record]:
        return read_outcomes(outcome_path(self._directory, generation_name(generation)))
