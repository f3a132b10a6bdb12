"""Models that define a utility, such as the old model of a penalty for flips: measured once, and kept with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.errors import UserError
from evoswarm.loop.baseline_rows import Baseline, baseline_rows
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.journal import Journal, Key, evaluation_of, outcome_path
from evoswarm.loop.records import Record, read_outcomes
from evoswarm.rows import Row
from evoswarm.utility import Split, Utility
from evoswarm.weights.pool import Pool


def calibrate(context: RunContext, split: Split, *, logprobs: bool = False) -> list[tuple[Row | None, Evaluation]]:
    """Measure the baselines of a split, or read what an earlier session measured, and calibrate the utility.

    Returns:
        The rows and their evaluations, whose utility is the mean of the scores; empty if the utility needs none.

    Raises:
        UserError: one cannot be measured, or the record of a run that has begun is lost or of other models.
    """
    inputs, config = context.inputs, context.config
    rows = baseline_rows(inputs.utility, split, pool=inputs.pool, root=config.root)
    if not rows:
        return []
    path = outcome_path(context.directory, _name(split))
    if not path.exists():
        _measure(context, split, rows, logprobs=logprobs)
    records = read_outcomes(path)
    if [(r.get("who"), r.get("row")) for r in records] != [(name, row and row.to_list()) for name, row in rows]:
        raise UserError(
            f"{path}: is damaged, or the models that the utility compares with have changed since this run started; "
            "restore them, or give the new run another `name`"
        )
    give(inputs.utility, split, records)
    return [(row, evaluation_of(record)) for (_, row), record in zip(rows, records, strict=True)]


def _measure(context: RunContext, split: Split, rows: Sequence[Baseline], *, logprobs: bool) -> None:
    later = "final" if split == "test" else "gen_"
    if any(context.directory.outcomes.glob(f"{later}*.jsonl")):
        path = outcome_path(context.directory, _name(split))
        raise UserError(
            f"{path}: is missing, and this run depends on it; restore it, or start a run with another `name`"
        )
    context.callbacks.message(f"measuring {len(rows)} models that the utility compares with, on {split}")
    keys = {Key(-1, "baseline", i, split): baseline for i, baseline in enumerate(rows)}
    journal = Journal(context.directory, _name(split))
    journal.expect(keys)
    jobs = {key: key.job(row, logprobs=logprobs, raw=True) for key, (_, row) in keys.items()}
    names = {key: name for key, (name, _) in keys.items()}
    for done, (_, evaluation) in enumerate(journal.measure(context, jobs, finalists=names), start=1):
        context.progress(None, "baselines", evaluation, done=done, of=len(jobs))
    journal.close()


def restore(utility: Utility, directory: RunDirectory) -> bool:
    """Calibrate a utility from the records of a run; False if a record is missing."""
    for split in _splits(utility):
        records = read_outcomes(outcome_path(directory, _name(split)))
        if {record.get("who") for record in records} != set(utility.baselines(split)):
            return False
        give(utility, split, records)
    return True


def calibrate_with(backend: Backend, utility: Utility, *, pool: Pool, root: Path) -> None:
    """Measure the baselines of both splits outside of a run, and calibrate the utility.

    Raises:
        UserError: one cannot be measured.
    """
    for split in _splits(utility):
        rows = baseline_rows(utility, split, pool=pool, root=root)
        jobs = [Job(("baseline", i, split), row, split, raw=True) for i, (_, row) in enumerate(rows)]
        found = {evaluation.key: evaluation for evaluation in backend.evaluate(jobs)}
        measured = [found[job.key] for job in jobs]
        pairs = zip(rows, measured, strict=True)
        give(utility, split, [{"who": name, "error": e.error, "scores": e.scores} for (name, _), e in pairs])


def give(utility: Utility, split: Split, records: Sequence[Record]) -> None:
    """Calibrate a utility for a split, of which there may be no records. Experts that failed are left out.

    Raises:
        UserError: a model could not be measured, or they define no utility.
    """
    measured: dict[str, list[list[float]]] = {}
    for record in records:
        if record["error"] is None:
            measured.setdefault(record["who"], []).append(record["scores"])
    for record in records:
        if record["who"] not in measured:
            who = {"base": "the base model", "experts": "no expert"}.get(record["who"], record["who"])
            can = "can" if record["who"] == "experts" else "cannot"
            raise UserError(f"{who} {can} be measured on {split}, which the utility needs: {record['error']}")
    if measured:
        utility.calibrate(split, measured)


def needs_baselines(utility: Utility) -> bool:
    """Whether the utility must be calibrated."""
    return any(_splits(utility))


def _splits(utility: Utility) -> Iterator[Split]:
    for split in ("validation", "test"):
        if utility.baselines(split):
            yield split


def _name(split: Split) -> str:
    return f"baselines_{split}"
