"""The utility of every expert of a pool on every task, and how much the experts differ."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from evoswarm.backend import Job
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility import make_utility
from evoswarm.utility.multi_task import MultiTask
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool

BASE_MODEL = "(base model)"


@dataclass(frozen=True)
class Column:
    """One task: validation utility of the base model and of every expert.

    Attributes:
        task: name of the config, and of the task within a multi_task utility.
        utilities: by expert; None if the evaluation failed.
        any: mean over examples of the best expert's score, the upper bound for routing to one expert per example.
        disagreement: share of examples on which two experts' scores differ, mean over pairs of experts.
    """

    task: str
    utilities: dict[str, float | None]
    any: float
    disagreement: float


def utility_matrix(config: RunConfig, *, pool: Path | str) -> list[Column]:
    """Measure a pool on a config's utility on this machine, or on each task of `multi_task`.

    Raises:
        UserError: the experts or the data do not fit.
    """
    if isinstance(config.utility, MultiTask):
        tasks = {f"{config.name}/{name}": task for name, task in config.utility.tasks.items()}
        return [_column(config.with_(utility=task), name, pool) for name, task in tasks.items()]
    return [_column(config, config.name, pool)]


def _column(config: RunConfig, task: str, folder: Path | str) -> Column:
    from evoswarm.backend.local import LocalBackend

    opened = open_pool(PoolConfig(experts=folder), model=config.model)
    rows = {BASE_MODEL: None, **{name: Row.one(name) for name in opened.names}}
    utility = make_utility(config.utility, root=config.root)
    with closing(LocalBackend(config, pool=opened, utility=utility)) as backend:
        evaluations = {found.key: found for found in backend.evaluate([Job(*item) for item in rows.items()])}
    found = {name: evaluations[name] for name in rows}
    utilities = {name: evaluation.utility for name, evaluation in found.items()}
    if all(utility is None for utility in utilities.values()):
        raise UserError(f"{task}: every evaluation failed; the first one: {found[BASE_MODEL].error}")
    scores = [e.scores for name, e in found.items() if name != BASE_MODEL and e.utility is not None]
    return Column(task, utilities, *_spread(np.array(scores, dtype=float)))


def _spread(scores: np.ndarray) -> tuple[float, float]:
    """`Column.any` and `Column.disagreement` of scores [experts, examples]."""
    if not len(scores):
        return float("nan"), float("nan")
    pairs = [float(np.mean(a != b)) for a, b in combinations(scores, 2)]
    return float(scores.max(axis=0).mean()), float(np.mean(pairs)) if pairs else 0.0


def renamed(columns: Sequence[Column]) -> list[Column]:
    """Columns with unique names: repeated ones get a number."""
    seen: dict[str, int] = {}
    result = []
    for column in columns:
        seen[column.task] = number = seen.get(column.task, 0) + 1
        result.append(column if number == 1 else replace(column, task=f"{column.task} ({number})"))
    return result
