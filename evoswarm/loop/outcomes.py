"""Per-example outcomes: written as each evaluation ends, and read again instead of scoring twice after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.backend.base import Key
from evoswarm.errors import Stopped
from evoswarm.loop.directory import RunDirectory, read_lines, to_line
from evoswarm.rows import BasisVector, basis_from_dict, basis_to_dict

Record = dict[str, Any]


class Journal:
    """The outcomes of one generation (or of the final test).

    While the generation goes on they are appended to a `.partial` file in the order in which they end; `close` writes
    them sorted by phase and particle, so that the file's bytes do not depend on who was faster.
    """

    def __init__(self, directory: RunDirectory, name: str) -> None:
        """
        Args:
            directory: the run directory.
            name: `gen_0003` or `final`.
        """
        self._directory = directory
        self.path = outcome_path(directory, name)
        self._partial = directory.outcomes / f"{name}.partial.jsonl"
        unfinished = read_lines(self._partial)
        if self._partial.exists():
            directory.write_lines(self._partial, unfinished)  # a line after a torn one would be lost
        # An engine that failed may work again; what a finished generation holds has been decided upon.
        known = read_lines(self.path) + [record for record in unfinished if record["scores"]]
        self._records = {key_of(record): record for record in known}
        self._lines = {key_of(record): to_line(record) for record in [*known, *unfinished]}
        self._asked: list[Key] = []

    def ask(self, jobs: Sequence[Job]) -> None:
        """Jobs whose outcomes belong on record, in the order of the file."""
        self._asked += [job.key for job in jobs]

    def evaluate(
        self, backend: Backend, jobs: Sequence[Job], *, stop: Callable[[], bool], who: Mapping[Key, str] | None = None
    ) -> Iterator[Evaluation]:
        """Measure the jobs that are not on record; yields every job's evaluation, the known ones first.

        One seed determines everything, so what is on record for a generation's particle is what would come out again.

        Args:
            backend: what measures.
            jobs: the jobs.
            stop: asked between evaluations whether to stop.
            who: names of finalists by job key. A finalist may be another one than in an earlier session, so its row is
                kept in the record and must be the same.

        Raises:
            Stopped: `stop` said so; what was measured is on record.
        """
        missing = []
        for job in jobs:
            record = self._records.get(job.key)
            if record is None or (who is not None and record["row"] != _terms(job)):
                missing.append(job)
            else:
                yield evaluation_of(job, record)
        if not missing:
            return
        if stop():
            raise Stopped
        with self._partial.open("a", encoding="utf-8") as partial:
            for evaluation in backend.evaluate(missing):
                job = evaluation.job
                more = {"who": who[job.key], "row": _terms(job)} if who is not None else {}
                record = _record(evaluation) | more
                line = self._lines[job.key] = to_line(record)
                partial.write(line)
                partial.flush()
                yield evaluation
                if stop():
                    raise Stopped

    def copy(self, evaluation: Evaluation) -> None:
        """Put on record what was not measured, because an equal row was."""
        self._lines[evaluation.job.key] = to_line(_record(evaluation))

    def close(self) -> None:
        """Write the sorted file, without what was on record but not asked for, and drop the partial one."""
        text = "".join(self._lines[key] for key in self._asked)
        self._directory.write(self.path.relative_to(self._directory.path), text.encode())
        self._partial.unlink(missing_ok=True)


def outcome_path(directory: RunDirectory, name: str) -> Path:
    """The file of a generation's outcomes."""
    return directory.outcomes / f"{name}.jsonl"


def rows_path(directory: RunDirectory, generation: int) -> Path:
    """The file of the rows that a generation asked for."""
    return directory.outcomes / f"gen_{generation:04}.rows.safetensors"


def save_rows(
    directory: RunDirectory, generation: int, basis: Sequence[BasisVector], rows: Sequence[np.ndarray]
) -> None:
    """Write the rows of a generation, in the order of its outcomes; earlier asks may have had fewer columns."""
    padded = [np.pad(block, ((0, 0), (0, len(basis) - block.shape[1]))) for block in rows]
    metadata = {"basis": json.dumps([basis_to_dict(vector) for vector in basis])}
    path = rows_path(directory, generation).relative_to(directory.path)
    directory.write(path, save({"rows": np.concatenate(padded)}, metadata))


def read_rows(directory: RunDirectory, generation: int) -> tuple[list[BasisVector], np.ndarray]:
    """Basis and rows [M, J] of a generation, in the order of its outcomes."""
    with safe_open(rows_path(directory, generation), framework="numpy") as file:
        basis = [basis_from_dict(entry) for entry in json.loads(file.metadata()["basis"])]
        return basis, file.get_tensor("rows")


def on_record(directory: RunDirectory, generation: int) -> bool:
    """Whether the outcomes of a finished generation and their rows are all there."""
    try:
        _, rows = read_rows(directory, generation)
    except (OSError, SafetensorError):
        return False
    return len(rows) == len(read_lines(outcome_path(directory, f"gen_{generation:04}")))


def key_of(record: Record) -> Key:
    """The key of the job that a record is of."""
    return record["generation"], record["phase"], record["particle"], record["split"]


def _terms(job: Job) -> list[dict[str, Any]] | None:
    return job.row.to_list() if job.row else None


def _record(evaluation: Evaluation) -> Record:
    job = evaluation.job
    return {
        "generation": job.generation,
        "phase": job.phase,
        "particle": job.particle,
        "split": job.split,
        "utility": evaluation.utility,
        "error": evaluation.error,
        "scores": evaluation.scores,
        "predictions": evaluation.predictions,
    }


def evaluation_of(job: Job, record: Record) -> Evaluation:
    """What a record says, as the evaluation of a job."""
    return Evaluation(job, record["utility"], record["scores"], record["predictions"], record["error"])
