"""The records of a run, one JSON object per line. A torn, damaged or foreign line ends the file for its readers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evoswarm.loop.directory import RunDirectory, read_lines

Record = dict[str, Any]
Fields = Mapping[str, type | tuple[type, ...]]

_NUMBER = (int, float)
_GENERATION: Fields = {
    "generation": int,
    "best": _NUMBER,
    "evaluations": int,
    "examples_scored": int,
    "examples_reused": int,
}
_TIMING: Fields = {"generation": int, "seconds": dict}
_OUTCOME: Fields = {
    "generation": int,
    "phase": str,
    "particle": int,
    "split": str,
    "utility": (*_NUMBER, type(None)),
    "error": (str, type(None)),
    "scores": list,
    "predictions": list,
}


def read_generations(directory: RunDirectory) -> list[Record]:
    """The lines of `generations.jsonl`."""
    return _read(directory.generations, _GENERATION)


def read_timings(directory: RunDirectory) -> list[Record]:
    """The lines of `timings.jsonl`."""
    return _read(directory.timings, _TIMING)


def read_outcomes(path: Path) -> list[Record]:
    """The lines of a file in `outcomes/`."""
    return _read(path, _OUTCOME)


def _read(path: Path, fields: Fields) -> list[Record]:
    records = []
    for record in read_lines(path):
        if not all(isinstance(record.get(name, ...), kind) for name, kind in fields.items()):
            break
        records.append(record)
    return records
