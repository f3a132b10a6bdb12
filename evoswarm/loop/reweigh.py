"""Other weights for the tasks of a run: all measured rows are ranked again from the records, without an engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.config.objectives import misnamed
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory, generation_name
from evoswarm.loop.history import run_pool, search_at, written_config
from evoswarm.loop.journal import Key, outcome_path
from evoswarm.loop.records import read_generations, read_outcomes
from evoswarm.loop.row_cache import read_rows
from evoswarm.loop.summary import recipe_data
from evoswarm.rows import Row
from evoswarm.search.bayes import BayesSearch
from evoswarm.utility import make_utility
from evoswarm.utility.multi_task_config import MultiTask
from evoswarm.weights.expert import read_json


@dataclass(frozen=True)
class MeasuredRow:
    """A row with the utility of each task, and where it was measured. Its row is None for the base model."""

    row: Row | None
    generation: int
    particle: int
    validation: dict[str, float]
    test: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reweighed:
    """All measured rows of a run, best first under the weights, which sum to 1. Ties: measured earlier."""

    weights: dict[str, float]
    rows: list[MeasuredRow]

    def value(self, tasks: Mapping[str, float]) -> float:
        """The weighted sum of the utilities of the tasks."""
        return math.fsum(weight * tasks[name] for name, weight in self.weights.items())


@dataclass(frozen=True)
class Predicted:
    """The row that a surrogate expects to be best under other weights: it was not measured."""

    row: Row
    value: float
    deviation: float


def reweigh(run_dir: Path, weights: Mapping[str, float]) -> Reweighed:
    """Rank the rows of all finished generations, the base model and the greedy soup under weights of the tasks.

    Raises:
        UserError: there is no run or no finished generation, its utility has no tasks, the weights do not fit them, or
            a record is damaged.
    """
    rows = list(measured_rows(run_dir))
    normalized = _normalized(weights, rows[0].validation)
    ranked = Reweighed(normalized, rows)
    return Reweighed(normalized, sorted(rows, key=lambda found: -ranked.value(found.validation)))


def _normalized(weights: Mapping[str, float], tasks: Mapping[str, float]) -> dict[str, float]:
    if problem := misnamed(weights, tasks):
        raise UserError(f"--weights: {problem}")
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise UserError(f"--weights: {name} has {weight:g}; give a number of 0 or more")
    total = math.fsum(weights.values())
    if total == 0:
        raise UserError("--weights: all are zero; give at least one task a positive weight")
    return {name: weights[name] / total for name in tasks}


def measured_rows(run_dir: Path) -> Iterator[MeasuredRow]:
    """Every distinct row that was measured on the tasks of a run, in the order of measurement.

    Raises:
        UserError: see `reweigh`.
    """
    directory = RunDirectory(run_dir)
    config = written_config(run_dir)
    if not isinstance(config.utility, MultiTask):
        raise UserError(f"{run_dir}: its utility.type {config.utility.type} is one task, so there is nothing to weigh")
    finals = _finalists(directory)
    found: dict[Row | None, MeasuredRow] = {}
    for measured in (*_searched(directory), *finals.values()):
        test = finals[measured.row].test if measured.row in finals else {}
        known = MeasuredRow(measured.row, measured.generation, measured.particle, measured.validation, test)
        found.setdefault(measured.row, known)
    if not found:
        raise UserError(f"{run_dir}: no generation is finished yet, so there is nothing to weigh")
    yield from found.values()


def _searched(directory: RunDirectory) -> Iterator[MeasuredRow]:
    for line in read_generations(directory):
        generation = line["generation"]
        try:
            basis, rows = read_rows(directory, generation)
        except (OSError, ValueError) as error:
            raise UserError(f"{directory.path}: the rows of generation {generation} cannot be read ({error})") from None
        records = read_outcomes(outcome_path(directory, generation_name(generation)))
        for record, row in zip(records, rows, strict=False):
            key = Key.of(record)
            tasks = line["tasks"].get(key.phase, {}).get(str(key.particle))
            if tasks:
                yield MeasuredRow(Row.of(basis, row), key.generation, key.particle, tasks)


def _finalists(directory: RunDirectory) -> dict[Row | None, MeasuredRow]:
    """The finalists of a finished run by row."""
    if not directory.summary.exists():
        return {}
    tasks, found = read_json(directory.summary)["tasks"], {}
    for record in read_outcomes(outcome_path(directory, "final")):
        known = tasks.get(record.get("who"), {})
        if record["split"] == "validation" and "validation" in known:
            row = None if record["row"] is None else Row.from_list(record["row"])
            test = known.get("test", {})
            found[row] = MeasuredRow(row, record["generation"], record["particle"], known["validation"], test)
    return found


def predicted(run_dir: Path, weights: Mapping[str, float]) -> Predicted | None:
    """What the surrogate of a run with `bayes` expects to be best under weights that sum to 1.

    None if the search has no surrogate, or if its data can no longer be read or has changed.
    """
    config = written_config(run_dir)
    search = search_at(run_dir, None)
    if not isinstance(search, BayesSearch):
        return None
    weighed = config.utility.with_(combine="weighted_sum", normalize="none", weights=dict(weights))
    try:
        utility = make_utility(weighed, root=config.root)
    except (UserError, OSError):
        return None
    if utility.sha256 != read_json(RunDirectory(run_dir).inputs)["data"]:
        return None
    row, value, deviation = search.optimum(np.array(utility.weights("validation")))
    return Predicted(Row.of(search.basis, row), value, deviation)


def save_recipe(run_dir: Path, recipe: dict[str, Any], path: Path) -> None:
    """Write a recipe, and next to it the saved vectors that it needs."""
    directory = RunDirectory(path.resolve().parent)
    for term in recipe["terms"]:
        if term["kind"] == "saved" and directory.path != run_dir.resolve():
            directory.write(term["path"], (run_dir / term["path"]).read_bytes())
    directory.write_json(path.name, recipe)


def recipe_of_row(run_dir: Path, found: MeasuredRow | Predicted, ranked: Reweighed) -> dict[str, Any]:
    """The recipe of a row, as in `recipe.json`, with the weights under which it was chosen."""
    config = written_config(run_dir)
    row, kind = found.row or Row(()), run_pool(config).kind
    data = recipe_data(config, row, kind=kind, identity=read_json(RunDirectory(run_dir).inputs))
    if isinstance(found, Predicted):
        return data | {"weights": ranked.weights, "predicted": {"value": found.value, "deviation": found.deviation}}
    tasks = {"validation": found.validation} | ({"test": found.test} if found.test else {})
    where = {"generation": found.generation, "particle": found.particle}
    return data | where | {"weights": ranked.weights, "tasks": tasks}
