"""The candidates of a run, and their outcomes: recorded by the run, or measured now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evoswarm.backend import Evaluation
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import best_rows
from evoswarm.loop.journal import Journal, Key, evaluation_of, outcome_path
from evoswarm.loop.records import Record, read_generations, read_outcomes
from evoswarm.loop.row_cache import RowCache, digest_of
from evoswarm.route.router import Candidate
from evoswarm.rows import Row
from evoswarm.utility import SPLITS, Split, Utility
from evoswarm.weights.pool import Pool

Say = Callable[[str], None]
EXPERT = "expert/"
"""What the names of experts start with."""
JOURNAL = "router"
"""The file of `outcomes/` that has what was measured for the router."""
Known = dict[tuple[Row | None, Split], Evaluation]
"""Successful evaluations by row (None: the base model) and split."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """Candidates that could be measured, best on validation first, and their scores [N, E] by split."""

    candidates: Sequence[Candidate]
    scores: Mapping[Split, np.ndarray]

    def index(self, row: Row | None) -> int | None:
        """The place of a row (None: the base model); None if it is not there."""
        return next((i for i, one in enumerate(self.candidates) if one.row == row), None)

    def is_expert(self) -> np.ndarray:
        """Mask [N] of the experts and the base model."""
        return np.array([one.name == "base" or one.name.startswith(EXPERT) for one in self.candidates])


def best_of(directory: RunDirectory, *, say: Say) -> list[Row]:
    """The best rows of a run, the winner first; none if no generation is finished."""
    rows = list(best_rows(directory.path)) if generations_saved(directory) else []
    if not directory.finished:
        best = "its best so far counts as its winner" if rows else "there are only the experts yet"
        say(f"{directory.path}: the run is not finished; {best}")
    return rows


def candidates_of(directory: RunDirectory, pool: Pool, best: Sequence[Row]) -> list[Candidate]:
    """The experts, the base model, the best rows of a run, and its greedy soup. Equal rows count once."""
    found = [Candidate(f"{EXPERT}{name}", Row.one(name)) for name in pool.names]
    found += [] if pool.include_base else [Candidate("base", None)]
    found += [Candidate(f"best_{i}", row) for i, row in enumerate(best, start=1)]
    soups = [line["row"] for line in _finals(directory) if line.get("who") == "greedy_soup"]
    found += [Candidate("greedy_soup", Row.from_list(terms)) for terms in soups[:1]]
    first = {one.row: one for one in reversed(found)}
    return [one for one in found if first[one.row] is one]


def recorded(directory: RunDirectory, candidates: Sequence[Candidate], *, say: Say) -> Known:
    """The evaluations that the run has recorded of its candidates."""
    cache, last = RowCache(directory), read_generations(directory)
    try:
        cache.restore(last=last[-1]["generation"] if last else -1)
    except (OSError, ValueError) as error:
        say(f"some outcomes of the run cannot be read ({error})")
    found: Known = {}
    for one in candidates:
        if one.row is not None and (evaluation := cache.find(digest_of(one.row))) is not None:
            found[one.row, "validation"] = evaluation
    return found | _known(_finals(directory))


def measured_before(directory: RunDirectory) -> Known:
    """The evaluations of an earlier router of the run."""
    return _known(read_outcomes(outcome_path(directory, JOURNAL)))


def _known(lines: Sequence[Record]) -> Known:
    good = [line for line in lines if line["error"] is None and line["split"] in SPLITS]
    rows = [None if line["row"] is None else Row.from_list(line["row"]) for line in good]
    return {(row, line["split"]): evaluation_of(line) for row, line in zip(rows, good, strict=True)}


def missing(candidates: Sequence[Candidate], known: Known, utility: Utility) -> dict[Key, Candidate]:
    """The evaluations that are not known yet."""
    splits = [split for split in SPLITS if utility.size(split)]
    keys = {Key(-1, JOURNAL, i, split): one for i, one in enumerate(candidates) for split in splits}
    return {key: one for key, one in keys.items() if (one.row, key.split) not in known}


def measure(context: RunContext, wanted: Mapping[Key, Candidate], known: Known) -> list[str]:
    """Measure what is not known yet and add it to `known`; returns why candidates could not be measured.

    Every evaluation is recorded in `outcomes/router.jsonl` as it ends, so nothing is measured twice.
    """
    journal, problems = Journal(context.directory, JOURNAL), []
    journal.expect(wanted)
    jobs = {key: key.job(one.row, texts=True) for key, one in wanted.items()}
    names = {key: one.name for key, one in wanted.items()}
    for done, (key, evaluation) in enumerate(journal.measure(context, jobs, finalists=names), start=1):
        context.progress(None, JOURNAL, evaluation, done=done, of=len(jobs))
        if evaluation.error is None:
            known[wanted[key].row, key.split] = evaluation
        else:
            problems.append(f"{names[key]} cannot be measured on {key.split}: {evaluation.error}")
    journal.close()
    return problems


def matrix_of(candidates: Sequence[Candidate], known: Known, utility: Utility) -> Matrix:
    """The scores of the candidates that are known on all splits.

    Raises:
        UserError: no expert is.
    """
    splits = [split for split in SPLITS if utility.size(split)]
    whole = [one for one in candidates if all((one.row, split) in known for split in splits)]
    if not any(one.name.startswith(EXPERT) for one in whole):
        raise UserError("no expert can be measured, so there is nothing to route to")
    whole.sort(key=lambda one: -(known[one.row, "validation"].utility or 0.0))
    scores = {split: np.array([known[one.row, split].scores for one in whole], float) for split in splits}
    return Matrix(whole, scores)


def _finals(directory: RunDirectory) -> list[Record]:
    """The records of the finalists of a finished run."""
    return read_outcomes(outcome_path(directory, "final")) if directory.finished else []
