"""The result of a run as data: `summary.json` and `recipe.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evoswarm.backend import Evaluation
from evoswarm.config import RunConfig
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import versions
from evoswarm.loop.notices import warnings_of
from evoswarm.loop.outcomes import task_utilities
from evoswarm.loop.records import read_generations, read_timings
from evoswarm.loop.references import Soup
from evoswarm.loop.selection import Ranking
from evoswarm.rows import Row
from evoswarm.search import Best, Search
from evoswarm.utility import Split, Utility
from evoswarm.utility.multi_task import MultiTaskUtility
from evoswarm.utility.types import SPLITS

Finals = dict[tuple[str, Split], Evaluation]
"""Evaluations of the finalists by name and split."""


def summary_of(
    context: RunContext,
    search: Search,
    ranking: Ranking,
    finals: Finals,
    *,
    soup: Soup | None,
    kept: float | None,
    front: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of `summary.json`.

    `kept` is the share of the squared norm in `best/` if it was truncated, `front` the content of `front.json`.
    """
    config, winner, expert = context.config, ranking.rows[0], best_expert(search)
    pool, last = context.inputs.pool, read_generations(context.directory)[-1]
    initial = dict(zip(search.experts, search.expert_utilities, strict=True))
    return {
        "name": config.name,
        "algorithm": config.search.type,
        "adapter_mode": context.backend.mode,
        "space": asdict(pool.space) if pool.space else None,
        "seed": config.seed,
        "generations": search.generation,
        "evaluations": last["evaluations"],
        "examples_scored": last["examples_scored"],
        "examples_reused": last["examples_reused"],
        "seconds": _seconds(context.directory),
        "sequences": sequences(context.directory),
        "initial": {
            "best_expert": expert,
            "validation": initial[expert],
            "test": _utility(finals, "best_expert", "test"),
            "all": initial,
        },
        "base": {split: _utility(finals, "base", split) for split in SPLITS},
        "greedy_soup": _greedy_soup(finals, soup),
        "best": {
            "validation": winner.utility,
            "test": _utility(finals, "ensemble:0", "test"),
            "generation": winner.generation,
            "particle": winner.particle,
            "recipe": Row.of(search.basis, winner.row).experts,
            "kept": kept,
        },
        "selection": ranking.selection,
        "scales": scales_of(context.inputs.utility),
        "reported": reported_of(context.inputs.utility, finals, search.experts),
        "metrics": metrics_of(context.inputs.utility, finals),
        "tasks": tasks_of(context.inputs.utility, finals),
        "front": front and {key: front[key] for key in ("size", "reference", "hypervolume", "rows")},
        "not_beaten": not_beaten(finals, context.inputs.utility),
        "ensemble": None if front else _ensemble(context.inputs.utility, len(ranking.rows), finals),
        "stop_reason": search.stop_reason,
        "ending": ending(config),
        "versions": versions(),
        "warnings": warnings_of(context.directory),
        "run_dir": str(context.place),
    }


def recipe_of(context: RunContext, search: Search, winner: Best) -> dict[str, Any]:
    """The content of `recipe.json`."""
    row, inputs = Row.of(search.basis, winner.row), context.inputs
    data = recipe_data(context.config, row, kind=inputs.pool.kind, identity=inputs.identity)
    return data | {"generation": winner.generation, "particle": winner.particle, "utility": winner.utility}


def recipe_data(config: RunConfig, row: Row, *, kind: str, identity: dict[str, Any]) -> dict[str, Any]:
    """A recipe, without where its row was measured. `identity` is the content of `inputs.json`."""
    return {
        "base": config.model,
        "kind": kind,
        "space": identity["space"],
        "experts": row.experts,
        "terms": row.to_list(),
        "algorithm": config.search.type,
        "seed": config.seed,
        "pool": identity["pool"],
    }


def best_expert(search: Search) -> str:
    """The best initial expert on validation; ties go to the first."""
    known = [(utility, -i) for i, utility in enumerate(search.expert_utilities) if utility is not None]
    return search.experts[-max(known)[1]]


def ending(config: RunConfig) -> dict[str, int | None]:
    """The settings that end a search, and what is measured then. A finished run continues if they change."""
    keys = ("max_generations", "max_evaluations", "patience")
    return {key: getattr(config.search, key) for key in keys} | {"references": config.references}


def _utility(finals: Finals, who: str, split: Split) -> float | None:
    evaluation = finals.get((who, split))
    return evaluation.utility if evaluation else None


def _greedy_soup(finals: Finals, soup: Soup | None) -> dict[str, Any] | None:
    if soup is None:
        return None
    utilities = {split: _utility(finals, "greedy_soup", split) for split in SPLITS}
    return utilities | {"evaluations": soup.evaluations, "recipe": soup.row.experts}


REFERENCES = {"base": "the base model", "best_expert": "the best expert", "greedy_soup": "the greedy soup"}
"""What the winner is compared with, by the name among the finalists."""


def not_beaten(finals: Finals, utility: Utility) -> list[str]:
    """One line for all references that the winner does not beat, on test or (without one) on validation."""
    split: Split = "test" if utility.size("test") else "validation"
    mine = _utility(finals, "ensemble:0", split)
    found = {name: _utility(finals, who, split) for who, name in REFERENCES.items()}
    better = [f"{name} ({u:.4f})" for name, u in found.items() if mine is not None and u is not None and u >= mine]
    return [f"the winner ({mine:.4f}) does not beat {' and '.join(better)} on {split}"] if better else []


def scales_of(utility: Utility) -> dict[str, list[float]]:
    """The utilities that became 0 and 1, by task of a multi_task that normalizes."""
    return (
        {task: list(scale) for task, scale in utility.scales.items()} if isinstance(utility, MultiTaskUtility) else {}
    )


def expert_name(expert: str) -> str:
    """The name of an expert among the finalists."""
    return f"expert:{expert}"


def reported_of(utility: Utility, finals: Finals, experts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The utilities of base, winner and every expert on each task that is only reported; None for one that failed."""
    found = {who: e for (who, split), e in finals.items() if split == "report" and e.utility is not None}
    utilities = {who: utility.task_utilities("report", [s or 0.0 for s in e.scores]) for who, e in found.items()}
    tasks = dict.fromkeys(task for of in utilities.values() for task in of)

    def value(who: str, task: str) -> float | None:
        return utilities.get(who, {}).get(task)

    return {
        task: {
            "base": value("base", task),
            "winner": value("ensemble:0", task),
            "experts": {name: value(expert_name(name), task) for name in experts},
        }
        for task in tasks
    }


def metrics_of(utility: Utility, finals: Finals) -> dict[str, dict[Split, dict[str, float]]]:
    """The metrics of every finalist by split, next to its utility; empty if the utility has none."""
    found: dict[str, dict[Split, dict[str, float]]] = {}
    for (who, split), evaluation in finals.items():
        if metrics := metrics_in(evaluation, utility, split):
            found.setdefault(who, {})[split] = metrics
    return found


def tasks_of(utility: Utility, finals: Finals) -> dict[str, dict[Split, dict[str, float]]]:
    """The utility of each task of every finalist by split; empty if the utility is one task."""
    found: dict[str, dict[Split, dict[str, float]]] = {}
    for (who, split), evaluation in finals.items():
        if tasks := task_utilities(evaluation, utility, split):
            found.setdefault(who, {})[split] = tasks
    return found


def voter(i: int) -> str:
    """The name of the i-th row of the ranking among the finalists. The first is the winner."""
    return f"ensemble:{i}"


def metrics_in(evaluation: Evaluation, utility: Utility, split: Split) -> dict[str, float]:
    """The metrics of an evaluation; empty if it failed, or the utility has none."""
    if evaluation.utility is None:
        return {}
    scores = [score or 0.0 for score in evaluation.scores]
    return utility.metrics(split, scores, evaluation.statistics or [()] * len(scores))


def _seconds(directory: RunDirectory) -> dict[str, float]:
    """Seconds over all sessions: `total` is wall time, `scoring`, `grading` and `moving` are summed over workers."""
    lines = [record["seconds"] for record in read_timings(directory)]
    keys = ("total", "scoring", "grading", "moving", "startup")
    return {key: round(sum(line.get(key, 0.0) for line in lines), 3) for key in keys}


def sequences(directory: RunDirectory) -> dict[str, float] | None:
    """Over all steps of all engines, the mean number of sequences that ran at once, and its share of those that could
    have; None if engines do not count them."""
    total: Counter[str] = Counter()
    for record in read_timings(directory):
        total.update(record.get("steps", {}))
    if not total:
        return None
    return {"running": total["running"] / total["steps"], "of_possible": total["running"] / total["possible"]}


def _ensemble(utility: Utility, size: int, finals: Finals) -> dict[str, Any] | None:
    """The majority vote of the ranking; None if answers cannot be voted on."""
    if not utility.votes:
        return None
    votes: dict[str, float | None] = {}
    for split in SPLITS:
        lines = [finals[voter(i), split].predictions for i in range(size) if utility.size(split)]
        votes[split] = _vote(utility, split, lines)
    return {"k": size, **votes}


def _vote(utility: Utility, split: Split, predictions: Sequence[list[str | None]]) -> float | None:
    """The utility of the vote; None if a voter has no predictions."""
    scores = vote_scores(utility, split, predictions)
    return None if scores is None else utility.aggregate(split, scores)


def vote_scores(utility: Utility, split: Split, predictions: Sequence[list[str | None]]) -> list[float] | None:
    """The scores of the vote by example, given the predictions of each voter; None if a voter has none."""
    if not predictions or not all(predictions):
        return None
    outcomes = [utility.vote(split, i, [line[i] for line in predictions]) for i in range(utility.size(split))]
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    return scores if len(scores) == len(outcomes) else None
