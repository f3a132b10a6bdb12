"""Per-example outcomes: written as each evaluation ends, and reused after a crash."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evoswarm.backend import Evaluation, Job
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory, generation_of, to_line
from evoswarm.loop.records import Record, read_outcomes
from evoswarm.rows import Row
from evoswarm.utility import Split

_OPTIONAL = ("logprobs", "statistics")
"""Fields of an evaluation that a record has only if they are not empty."""


class Key(NamedTuple):
    """The name of an evaluation within a run."""

    generation: int
    phase: str
    particle: int
    split: Split

    @classmethod
    def of(cls, record: Record) -> Key:
        """The key of a record."""
        return cls(record["generation"], record["phase"], record["particle"], record["split"])

    def job(self, row: Row | None, *, texts: bool = False, logprobs: bool = False, raw: bool = False) -> Job:
        """The job that measures a row under this name."""
        return Job(self, row, self.split, texts=texts, logprobs=logprobs, raw=raw, affinity=self.particle)


class Journal:
    """The outcomes of one generation, or of the finalists.

    During the generation each outcome is appended to a `.partial` file as it comes. `close` writes them in a fixed
    order, so that the bytes of the file do not depend on which worker was faster.
    """

    def __init__(self, directory: RunDirectory, name: str) -> None:
        """`name` is `gen_0003` or `final`."""
        self._directory = directory
        self.path = outcome_path(directory, name)
        self._partial = directory.outcomes / f"{name}.partial.jsonl"
        unfinished = read_outcomes(self._partial)
        if self._partial.exists():
            directory.write_lines(self._partial, unfinished)  # a line appended after a torn one would be lost
        # Retry evaluations whose engine failed, but not in a finished generation: the search has used its outcome.
        finished = read_outcomes(self.path)
        used = finished if generation_of(self.path.name) is not None else []
        known = used + [record for record in [*finished, *unfinished] if record["scores"]]
        self._records = {Key.of(record): record for record in known}
        self._lines = {Key.of(record): to_line(record) for record in [*known, *unfinished]}
        self._expected: list[Key] = []

    def expect(self, keys: Iterable[Key]) -> None:
        """Add evaluations to the file, in this order."""
        self._expected += keys

    def measure(
        self, context: RunContext, jobs: Mapping[Key, Job], *, finalists: Mapping[Key, str] | None = None
    ) -> Iterator[tuple[Key, Evaluation]]:
        """Measure the jobs that have no record. Yields every evaluation, the recorded ones first.

        One seed determines the whole run, so the record of a generation's particle is what a new evaluation would give.
        `finalists` may differ between sessions, so a finalist's name and row are part of its record, and a record with
        another row is not reused.

        Raises:
            Stopped: the caller asked to stop. Everything measured so far is recorded.
        """
        missing: dict[Hashable, Key] = {}
        for key, job in jobs.items():
            record = self._records.get(key)
            if record is None or (finalists is not None and record.get("row") != _terms(job)):
                missing[job.key] = key
            else:
                yield key, evaluation_of(record)
        if not missing:
            return
        context.callbacks.check()
        with self._partial.open("a", encoding="utf-8") as partial:
            for evaluation in context.backend.evaluate([jobs[key] for key in missing.values()]):
                key = missing[evaluation.key]
                extra = {"who": finalists[key], "row": _terms(jobs[key])} if finalists is not None else {}
                self._lines[key] = to_line(_record(key, evaluation) | extra)
                partial.write(self._lines[key])
                partial.flush()
                yield key, evaluation
                context.callbacks.check()

    def copy(self, key: Key, evaluation: Evaluation) -> None:
        """Record an evaluation that was reused from an equal row."""
        self._lines[key] = to_line(_record(key, evaluation))

    def close(self) -> None:
        """Write the ordered file without unexpected records, and remove the partial one."""
        text = "".join(self._lines[key] for key in self._expected)
        self._directory.write(self.path.relative_to(self._directory.path), text.encode())
        self._partial.unlink(missing_ok=True)


def outcome_path(directory: RunDirectory, name: str) -> Path:
    """The file of the outcomes of a generation, or of the finalists."""
    return directory.outcomes / f"{name}.jsonl"


def evaluation_of(record: Record) -> Evaluation:
    """The evaluation that a record holds."""
    parts = {name: record[name] for name in ("utility", "scores", "predictions", "error")}
    return Evaluation(Key.of(record), **parts, **{name: record.get(name, []) for name in _OPTIONAL})


def _terms(job: Job) -> list[dict[str, Any]] | None:
    return job.row.to_list() if job.row else None


def _record(key: Key, evaluation: Evaluation) -> Record:
    record = key._asdict() | {
        "utility": evaluation.utility,
        "error": evaluation.error,
        "scores": evaluation.scores,
        "predictions": evaluation.predictions,
    }
    return record | {name: values for name in _OPTIONAL if (values := getattr(evaluation, name))}
