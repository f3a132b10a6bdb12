"""The end of a run: the one reading of the test split, the ensemble, and what is handed back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.card import model_card
from evoswarm.loop.directory import RunDirectory, append_line, read_lines, to_line
from evoswarm.loop.inputs import Inputs, versions
from evoswarm.loop.outcomes import Journal
from evoswarm.rows import Row
from evoswarm.search import Search
from evoswarm.search.base import Best
from evoswarm.utility import Split, Utility
from evoswarm.utility.types import SPLITS
from evoswarm.weights.wegeft import is_wegeft

if TYPE_CHECKING:
    from evoswarm.loop.evolution import Hooks


Finals = dict[tuple[str, Split], Evaluation]


def finish(
    config: RunConfig, inputs: Inputs, directory: RunDirectory, backend: Backend, hooks: Hooks, search: Search
) -> dict[str, Any]:
    """Measure the finalists on the test split and write everything that a user takes away.

    The finalists are chosen on validation alone: the base, the best initial expert, and the best `ensemble_size` rows,
    the first of which is the winner.

    Returns:
        The summary, as it is in `summary.json`.
    """
    start = time.perf_counter()
    before = (backend.seconds.scoring, backend.seconds.moving)
    ranking = search.ranking(config.search.ensemble_size)
    winner = Row.of(search.basis, ranking[0].row)
    hooks.message("writing the best expert")
    backend.save_expert(winner, directory.best)
    recipe = _recipe(config, inputs, search, winner)
    directory.write_json(directory.recipe.name, recipe)
    finals = _measure_finals(config, inputs, directory, backend, hooks, search, ranking)
    timing = {
        "generation": search.generation,
        "phase": "final",
        "examples": 0,
        "seconds": {
            "total": time.perf_counter() - start,
            "scoring": backend.seconds.scoring - before[0],
            "moving": backend.seconds.moving - before[1],
        },
    }
    append_line(directory.timings, to_line(timing))
    summary = _summary(config, inputs, directory, search, ranking, finals)
    directory.write("best/README.md", model_card(config, summary, recipe, wegeft=_wegeft(inputs)).encode())
    directory.write_json(directory.summary.name, summary)
    return summary


def _measure_finals(
    config: RunConfig,
    inputs: Inputs,
    directory: RunDirectory,
    backend: Backend,
    hooks: Hooks,
    search: Search,
    ranking: list[Best],
) -> Finals:
    """Evaluations by (who, split)."""
    has_test = inputs.utility.size("test") > 0
    rows = {"base": None, "best_expert": Row.one(_best_expert(search))}
    rows |= {f"ensemble:{i}": Row.of(search.basis, best.row) for i, best in enumerate(ranking)}
    splits: tuple[Split, ...] = ("validation", "test") if has_test else ("validation",)
    who = [(name, split) for split in splits for name in rows]
    jobs = [Job(search.generation, "final", i, rows[name], split, texts=True) for i, (name, split) in enumerate(who)]
    where = "on the test split" if has_test else "(there is no test split)"
    hooks.message(f"measuring {len(rows)} finalists {where}")
    journal = Journal(directory, "final")
    journal.ask(jobs)
    finalists = {job.key: finalist for job, finalist in zip(jobs, who, strict=True)}
    names = {key: name for key, (name, _) in finalists.items()}
    found: Finals = {}
    for evaluation in journal.evaluate(backend, jobs, stop=hooks.stop, who=names):
        found[finalists[evaluation.job.key]] = evaluation
        hooks.notify(
            {
                "kind": "progress",
                "generation": None,
                "phase": "test",
                "done": len(found),
                "of": len(jobs),
                "examples": len(evaluation.scores),
                "failed": evaluation.error is not None,
            }
        )
    broken = [evaluation.error for evaluation in found.values() if not evaluation.scores]
    if len(broken) == len(jobs):
        raise UserError(f"every evaluation of the finalists failed; the first one: {broken[0]}")
    journal.close()
    failed = [(name, evaluation.error) for (name, _), evaluation in found.items() if evaluation.error]
    if failed:
        name, reason = failed[0]
        hooks.warning(f"{len(failed)} of {len(jobs)} evaluations of finalists failed; the first, of {name}: {reason}")
    return found


def _best_expert(search: Search) -> str:
    """The best initial expert on validation; ties: the first one."""
    known = [(utility, -i) for i, utility in enumerate(search.expert_utilities) if utility is not None]
    return search.experts[-max(known)[1]]


def _wegeft(inputs: Inputs) -> bool:
    return inputs.pool.kind == "adapter" and is_wegeft(inputs.pool.experts[0].config)


def _summary(
    config: RunConfig,
    inputs: Inputs,
    directory: RunDirectory,
    search: Search,
    ranking: list[Best],
    finals: Finals,
) -> dict[str, Any]:
    last = read_lines(directory.generations)[-1]
    winner, expert = ranking[0], _best_expert(search)
    initial = dict(zip(search.experts, search.expert_utilities, strict=True))
    return {
        "name": config.name,
        "algorithm": config.search.type,
        "seed": config.seed,
        "generations": search.generation,
        "evaluations": last["evaluations"],
        "examples_scored": last["examples_scored"],
        "examples_reused": last["examples_reused"],
        "seconds": _seconds(directory),
        "initial": {
            "best_expert": expert,
            "validation": initial[expert],
            "test": _utility(finals, "best_expert", "test"),
            "all": initial,
        },
        "base": {split: _utility(finals, "base", split) for split in SPLITS},
        "best": {
            "validation": winner.utility,
            "test": _utility(finals, "ensemble:0", "test"),
            "generation": winner.generation,
            "particle": winner.particle,
            "recipe": Row.of(search.basis, winner.row).experts,
        },
        "ensemble": _ensemble(inputs.utility, ranking, finals),
        "stop_reason": search.stop_reason,
        "stop_rule": stop_rule(config),
        "versions": versions(),
        "warnings": inputs.warnings,
        "run_dir": config.run_place,
    }


def stop_rule(config: RunConfig) -> dict[str, int | None]:
    """What a search ended by: with another rule a finished run goes on."""
    keys = ("max_generations", "max_evaluations", "patience")
    return {key: getattr(config.search, key) for key in keys}


def _utility(finals: Finals, who: str, split: Split) -> float | None:
    evaluation = finals.get((who, split))
    return evaluation.utility if evaluation else None


def _seconds(directory: RunDirectory) -> dict[str, float]:
    """Seconds of all sessions together: total by the clock, scoring and moving summed over workers."""
    lines = [record["seconds"] for record in read_lines(directory.timings)]
    return {
        key: round(sum(line.get(key, 0.0) for line in lines), 3) for key in ("total", "scoring", "moving", "startup")
    }


def _ensemble(utility: Utility, ranking: list[Best], finals: Finals) -> dict[str, Any] | None:
    """The majority vote of the ranking; None where answers cannot be voted on."""
    if not utility.votes:
        return None
    votes: dict[str, float | None] = {}
    for split in SPLITS:
        lines = [finals[f"ensemble:{i}", split].predictions for i in range(len(ranking)) if utility.size(split)]
        votes[split] = _vote(utility, split, lines)
    return {"k": len(ranking), **votes}


def _vote(utility: Utility, split: Split, predictions: Sequence[list[str | None]]) -> float | None:
    voters = [line for line in predictions if line]
    if not voters or len(voters) < len(predictions):
        return None
    outcomes = [utility.vote(split, i, [line[i] for line in voters]) for i in range(utility.size(split))]
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    return utility.aggregate(split, scores) if len(scores) == len(outcomes) else None


def _recipe(config: RunConfig, inputs: Inputs, search: Search, winner: Row) -> dict[str, Any]:
    best = search.global_best
    assert best is not None
    return {
        "base": config.model,
        "kind": inputs.pool.kind,
        "experts": winner.experts,
        "terms": winner.to_list(),
        "generation": best.generation,
        "particle": best.particle,
        "utility": best.utility,
        "algorithm": config.search.type,
        "seed": config.seed,
        "pool": inputs.identity["pool"],
    }
