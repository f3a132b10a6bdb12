"""The end of a run: measure the finalists, read the test split once, and write the result."""

from __future__ import annotations

from typing import Any

from evoswarm.errors import UserError
from evoswarm.loop.baselines import calibrate
from evoswarm.loop.card import model_card
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import append_line, to_line
from evoswarm.loop.front import write_front
from evoswarm.loop.generation import Stopwatch
from evoswarm.loop.journal import Journal, Key
from evoswarm.loop.references import greedy_soup
from evoswarm.loop.selection import ranking_of
from evoswarm.loop.summary import Finals, best_expert, expert_name, not_beaten, recipe_of, summary_of, voter
from evoswarm.rows import Row
from evoswarm.search import Best, Search
from evoswarm.utility import Split
from evoswarm.weights.kinds import kind_of


def finish(context: RunContext, search: Search) -> dict[str, Any]:
    """Measure the finalists on the test split and write every result file.

    The finalists are chosen on validation alone: the base, the best initial expert, the greedy soup, and the best rows
    of the search, the first of which is the winner (see `ranking_of`). On tasks that are only reported, the base, all
    experts and the winner are measured.

    Returns:
        The summary, as in `summary.json`.
    """
    directory, pool = context.directory, context.inputs.pool
    stopwatch = Stopwatch(context.backend.counters)
    chosen = ranking_of(context, search)
    ranking = chosen.rows
    context.callbacks.message("writing the best expert")
    kept = context.backend.save_expert(Row.of(search.basis, ranking[0].row), directory.best)
    if kept is not None:
        context.callbacks.message(
            f"best/ has rank {context.config.export.rank} and keeps {kept:.1%} of the squared norm"
        )
    recipe = recipe_of(context, search, ranking[0])
    directory.write_json(directory.recipe.name, recipe)
    soup = greedy_soup(context, search)
    calibrate(context, "test")
    finals = _measure(context, search, ranking, soup.row if soup else None)
    timing = {"generation": search.generation, "phase": "final", "examples": 0, "seconds": stopwatch.seconds()}
    append_line(directory.timings, to_line(timing | {"steps": stopwatch.steps()}))
    for line in not_beaten(finals, context.inputs.utility):
        context.callbacks.warning(line)
    front = write_front(context, search, ranking, finals)
    summary = summary_of(context, search, chosen, finals, soup=soup, kept=kept, front=front)
    kind = kind_of(pool.experts[0].config) if pool.kind == "adapter" else None
    card = model_card(context.config, summary, recipe, setup=kind.setup if kind else "")
    directory.write("best/README.md", card.encode())
    directory.write_json(directory.summary.name, summary)
    return summary


def _finalists(
    context: RunContext, search: Search, ranking: list[Best], soup: Row | None
) -> dict[Key, tuple[str, Row | None]]:
    """Name and row of each evaluation of a finalist."""
    utility = context.inputs.utility
    rows = {"base": None, "best_expert": Row.one(best_expert(search))}
    rows |= {voter(i): Row.of(search.basis, best.row) for i, best in enumerate(ranking)}
    reported = {name: rows[name] for name in ("base", voter(0))}
    reported |= {expert_name(name): Row.one(name) for name in search.experts}
    rows |= {"greedy_soup": soup} if soup else {}  # last: a later session may want it, and the others keep their keys
    splits: dict[Split, dict[str, Row | None]] = {"validation": rows, "test": rows, "report": reported}
    return {
        Key(search.generation, "final", i, split): finalist
        for split, of in splits.items()
        if split in utility.splits and utility.size(split)
        for i, finalist in enumerate(of.items())
    }


def _measure(context: RunContext, search: Search, ranking: list[Best], soup: Row | None) -> Finals:
    """The evaluations of the finalists by name and split."""
    finalists = _finalists(context, search, ranking, soup)
    names = {key: name for key, (name, _) in finalists.items()}
    where = "on the test split" if context.inputs.utility.size("test") else "(there is no test split)"
    context.callbacks.message(f"measuring {len(set(names.values()))} finalists {where}")
    journal = Journal(context.directory, "final")
    journal.expect(names)
    found: Finals = {}
    jobs = {key: key.job(row, texts=True) for key, (_, row) in finalists.items()}
    for key, evaluation in journal.measure(context, jobs, finalists=names):
        found[names[key], key.split] = evaluation
        context.progress(None, "test", evaluation, done=len(found), of=len(jobs))
    _report_failures(context, found)
    journal.close()
    return found


def _report_failures(context: RunContext, finals: Finals) -> None:
    broken = [evaluation.error for evaluation in finals.values() if not evaluation.scores]
    if len(broken) == len(finals):
        raise UserError(f"every evaluation of the finalists failed; the first one: {broken[0]}")
    failed = [(name, evaluation.error) for (name, _), evaluation in finals.items() if evaluation.error]
    if failed:
        (name, reason), count = failed[0], f"{len(failed)} of {len(finals)}"
        context.callbacks.warning(f"{count} evaluations of finalists failed; the first, of {name}: {reason}")
