"""Per-example outcomes: written as each evaluation ends, and read again instead of scoring twice after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.errors import Stopped
from evoswarm.loop.directory import RunDirectory, read_lines

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
        self._records = {_key(record): record for record in read_lines(self.path) + read_lines(self._partial)}
        self._order: dict[tuple, int] = {}

    def evaluate(
        self, backend: Backend, jobs: Sequence[Job], *, stop: Callable[[], bool], who: Sequence[str] = ()
    ) -> Iterator[Evaluation]:
        """Measure the jobs that are not on record; yields every job's evaluation, the known ones first.

        Args:
            backend: what measures.
            jobs: the jobs.
            stop: asked between evaluations whether to stop.
            who: a name for each job, kept in its record.

        Raises:
            Stopped: `stop` said so; what was measured is on record.
        """
        names = dict(zip(jobs, who, strict=True)) if who else {}
        known = {job for job in jobs if self._known(job)}
        self._order |= {_job_key(job): len(self._order) + i for i, job in enumerate(jobs)}
        yield from (_evaluation(job, self._records[_job_key(job)]) for job in jobs if job in known)
        missing = [job for job in jobs if job not in known]
        if missing and stop():
            raise Stopped
        for evaluation in backend.evaluate(missing) if missing else ():
            record = _record(evaluation, names.get(evaluation.job))
            self._directory.append(self._partial, record, sync=False)
            self._records[_job_key(evaluation.job)] = record
            yield evaluation
            if stop():
                raise Stopped

    def close(self) -> None:
        """Write the sorted file and drop the partial one, and whatever was on record but not asked for."""
        keys = sorted((key for key in self._records if key in self._order), key=self._order.__getitem__)
        self._directory.write_lines(self.path, [self._records[key] for key in keys])
        self._partial.unlink(missing_ok=True)

    def _known(self, job: Job) -> bool:
        record = self._records.get(_job_key(job))
        return record is not None and record["row"] == (job.row.to_list() if job.row else None)


def outcome_path(directory: RunDirectory, name: str) -> Path:
    """The file of a generation's outcomes."""
    return directory.outcomes / f"{name}.jsonl"


def _job_key(job: Job) -> tuple:
    return job.phase, job.particle, job.split


def _key(record: Record) -> tuple:
    return record["phase"], record["particle"], record["split"]


def _record(evaluation: Evaluation, who: str | None) -> Record:
    job = evaluation.job
    return {
        "generation": job.generation,
        "phase": job.phase,
        "particle": job.particle,
        "split": job.split,
        **({"who": who} if who else {}),
        "row": job.row.to_list() if job.row else None,
        "utility": evaluation.utility,
        "error": evaluation.error,
        "scores": evaluation.scores,
        "predictions": evaluation.predictions,
    }


def _evaluation(job: Job, record: Record) -> Evaluation:
    return Evaluation(job, record["utility"], record["scores"], record["predictions"], record["error"])
