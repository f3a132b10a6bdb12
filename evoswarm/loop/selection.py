"""The final choice among the best rows of a search, by a task that the search has not maximized."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evoswarm.errors import UserError
from evoswarm.loop.context import RunContext
from evoswarm.loop.journal import Journal, Key
from evoswarm.rows import Row
from evoswarm.search import Best, Search
from evoswarm.utility.multi_task_config import MultiTask


@dataclass(frozen=True)
class Ranking:
    """The best rows, the winner first.

    Attributes:
        rows: at most `finalists` rows of the search.
        selection: for `summary.json`: the task that chose them, and the utilities of the candidates on it, in the
            search's own order; None if the search chose.
    """

    rows: list[Best]
    selection: dict[str, Any] | None = None


def ranking_of(context: RunContext, search: Search) -> Ranking:
    """The ranking of a finished search, by `utility.select_on` if the config has it.

    The candidates that are measured come first, by their utility on that task. Ties, failed candidates and further rows
    keep the search's order.

    Raises:
        UserError: no candidate can be measured.
    """
    utility, size = context.config.utility, context.config.search.finalists
    if not isinstance(utility, MultiTask) or utility.select_on is None:
        return Ranking(search.ranking(size))
    known = search.ranking(max(size, utility.candidates))
    candidates = known[: utility.candidates]
    found = _measure(context, search, candidates, utility.select_on)
    values = [-math.inf if value is None else value for value in found]
    order = sorted(range(len(candidates)), key=lambda i: -values[i])
    lines = [
        {"generation": best.generation, "particle": best.particle, "validation": best.utility, "utility": value}
        for best, value in zip(candidates, found, strict=True)
    ]
    rows = [candidates[i] for i in order] + known[utility.candidates :]
    return Ranking(rows[:size], {"task": utility.select_on, "candidates": lines})


def _measure(context: RunContext, search: Search, candidates: list[Best], task: str) -> list[float | None]:
    """The utilities of candidates on the task that chooses."""
    context.callbacks.message(f"choosing the winner among {len(candidates)} rows by {task}")
    keys = {Key(search.generation, "select", i, "select"): best for i, best in enumerate(candidates)}
    journal = Journal(context.directory, "select")
    journal.expect(keys)
    jobs = {key: key.job(Row.of(search.basis, best.row)) for key, best in keys.items()}
    names = {key: f"candidate:{key.particle}" for key in keys}
    found: dict[Key, float | None] = {}
    errors = []
    for key, evaluation in journal.measure(context, jobs, finalists=names):
        found[key] = evaluation.utility
        errors += [evaluation.error] if evaluation.error else []
        context.progress(None, "select", evaluation, done=len(found), of=len(jobs))
    journal.close()
    if len(errors) == len(jobs):
        raise UserError(
            f"no candidate can be measured on {task}, which utility.select_on names; one of them: {errors[0]}"
        )
    if errors:
        context.callbacks.warning(f"{len(errors)} of {len(jobs)} candidates cannot be measured on {task}: {errors[0]}")
    return [found[key] for key in keys]
