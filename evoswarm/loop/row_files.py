"""The rows that a generation measured, one file per generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.journal import outcome_path
from evoswarm.loop.names import generation_name
from evoswarm.rows import BasisVector, basis_from_dict, basis_to_dict


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
    """Basis and rows [M, J] of a generation, in the order of its outcomes."""
    with safe_open(rows_path(directory, generation), framework="numpy") as file:
        basis = [basis_from_dict(entry) for entry in json.loads(file.metadata()["basis"])]
        return basis, file.get_tensor("rows")


def is_recorded(directory: RunDirectory, generation: int) -> bool:
    """Whether all outcomes and rows of a finished generation can be read."""
    try:
        _, rows = read_rows(directory, generation)
    except (OSError, SafetensorError):
        return False
    return len(rows) == len(read_lines(outcome_path(directory, generation_name(generation))))
