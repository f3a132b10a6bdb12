"""Measure outside of a run, on this machine: one expert, recipe or base model, or every expert of a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.backend.learned import Learned
from evoswarm.backend.mix import MixBackend, asked_apart, require_answers
from evoswarm.config import RunConfig
from evoswarm.config.recipe import read_recipe
from evoswarm.errors import UserError
from evoswarm.loop.baselines import calibrate_with, needs_baselines, restore
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import written_config
from evoswarm.loop.inputs import require_installable
from evoswarm.loop.learned import read_learned
from evoswarm.loop.normalization import base_on, with_normalization
from evoswarm.loop.summary import metrics_in
from evoswarm.rows import ExpertPart, ExpertVector, Row
from evoswarm.utility import Split, Utility, UtilityConfig, make_utility
from evoswarm.utility.multi_task_config import MultiTask
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import read_json
from evoswarm.weights.mixfile import MIX, MixFile, read_mix
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.space import Space, choose_space

BASE_MODEL = "(base model)"


Warn = Callable[[str], None]
"""Is told what the user should know, line by line."""


@dataclass(frozen=True)
class Measured(Evaluation):
    """An evaluation with its metrics."""

    metrics: dict[str, float] = field(default_factory=dict)


def measure(
    config: RunConfig,
    *,
    adapter: Path | None,
    recipe: Path | None,
    split: Split,
    warn: Warn = lambda text: None,
) -> Measured:
    """Evaluate an expert folder, or a recipe over the config's pool, or (without either) the base model.

    Raises:
        UserError: the expert does not fit the base, or the recipe does not fit the pool.
    """
    utility = make_utility(config.utility, root=config.root)
    if utility.size(split) == 0:
        raise UserError(f"the config has no {split} split; set utility.data.{split}")
    pool, row = _measured(config, adapter=adapter, recipe=recipe)
    require_installable(config, pool)
    for warning in [*pool.warnings, *(_other_space(pool, config.pool) if recipe is not None else [])]:
        warn(warning)
    root = None if recipe is None else _folder_of_vectors(recipe.resolve())
    # The run that the expert or the recipe is from has paid for some answers.
    run = root if adapter is None else adapter.resolve().parent
    learned = Learned(None if run is None else read_learned(RunDirectory(run).learned))
    record = run if run is not None and _same_utility(config, utility, run) else None
    config, utility = settled(config, pool, utility, run=record)
    with closing(local_backend(config, pool, utility, run=run, learned=learned, warn=warn)) as backend:
        (evaluation,) = backend.evaluate([Job("evaluate", row, split, texts=True)])
    return Measured(**vars(evaluation), metrics=metrics_in(evaluation, utility, split))


def _measured(config: RunConfig, *, adapter: Path | None, recipe: Path | None) -> tuple[Pool, Row | None]:
    """The pool of what is evaluated, and its row there."""
    if adapter is None:
        pool = open_pool(_pool_of(recipe, config), model=config.model)
        return pool, None if recipe is None else _row(recipe, pool)
    if (mix := read_mix(adapter)) is not None:
        pool = open_pool(config.pool, model=config.model)
        return pool, _row_of_mix(adapter, mix, pool)
    kind = "models" if config.pool.kind == "models" else "weights"
    pool = open_pool(PoolConfig(experts=[adapter.resolve()], kind=kind), model=config.model, alone=True)
    return pool, Row.one(pool.names[0])


def local_backend(
    config: RunConfig,
    pool: Pool,
    utility: Utility,
    *,
    run: Path | None = None,
    learned: Learned | None = None,
    warn: Warn = lambda text: None,
) -> Backend:
    """A backend on this machine. `run`: the run directory of the row, with its saved basis vectors."""
    from evoswarm.backend.local import LocalBackend

    def start(config: RunConfig, pool: Pool) -> LocalBackend:
        return LocalBackend(config, pool=pool, utility=utility, root=run, learned=learned, warn=warn)

    if pool.kind == "model":
        require_answers(config, pool, utility)
    if not asked_apart(config, utility):
        return start(config, pool)
    return MixBackend(config, pool=pool, utility=utility, start=start, root=run, keep=False)


def _calibrate(config: RunConfig, utility: Utility, run: Path | None) -> None:
    """Calibrate a utility that other models define: from the run directory `run`, or by measuring them."""
    if not needs_baselines(utility) or (run is not None and restore(utility, RunDirectory(run))):
        return
    pool = open_pool(config.pool, model=config.model)
    with closing(local_backend(config, pool, utility, run=run)) as backend:
        calibrate_with(backend, utility, pool=pool, root=config.root)


def _same_utility(config: RunConfig, utility: Utility, run: Path) -> bool:
    directory = RunDirectory(run)
    if not directory.exists or not directory.inputs.exists():
        return False
    same_data = read_json(directory.inputs).get("data") == utility.sha256
    return same_data and written_config(run).utility == config.utility


def settled(config: RunConfig, pool: Pool, utility: Utility, *, run: Path | None = None) -> tuple[RunConfig, Utility]:
    """A config with constants in place of `normalize: measured`, and its calibrated utility.

    Both are from the records of `run`, the directory of a run with this utility; without one they are measured.
    """
    from evoswarm.backend.local import LocalBackend

    def measured(raw: RunConfig) -> Evaluation:
        return base_on(LocalBackend(raw, pool=pool, utility=make_utility(raw.utility, root=raw.root)))

    record = RunDirectory(run) if run is not None and RunDirectory(run).normalization.exists() else None
    found = with_normalization(config, record, measured)
    utility = utility if found is config else make_utility(found.utility, root=found.root)
    _calibrate(found, utility, run)
    return found, utility


def _folder_of_vectors(recipe: Path) -> Path:
    """Where the saved vectors of a recipe are: next to it, or in the run directory of its `front/`."""
    run = RunDirectory(recipe.parent.parent)
    return run.path if recipe.parent == run.front and run.exists else recipe.parent


def _pool_of(recipe: Path | None, config: RunConfig) -> PoolConfig:
    """The config's pool, mixed in the recipe's space."""
    space = read_json(recipe).get("space") if recipe is not None else None
    if space is None:
        return config.pool
    if space not in get_args(Space):
        raise UserError(f"{recipe}: has space {space!r}, which must be {' or '.join(get_args(Space))}")
    if config.pool.space not in (None, space):
        raise UserError(
            f"{recipe}: is a mix in {space} space, and pool.space is {config.pool.space}; set pool.space to {space}, "
            "or omit it"
        )
    return config.pool.with_(space=space)


def _other_space(pool: Pool, config: PoolConfig) -> list[str]:
    """A line if a recipe is mixed in another space than a run of the config would use."""
    usual = choose_space(pool.experts, config.space, prefer_product=bool(config.prefer_product))
    if pool.space is None or usual is None or pool.space.space == usual.space:
        return []
    return [f"the recipe is mixed in {pool.space.space} space, as it was found; a run of this config would be {usual}"]


def _row(recipe: Path, pool: Pool) -> Row:
    row, data = read_recipe(recipe)
    before = data.get("pool", {})
    named = [v.name for v, _ in row.terms if isinstance(v, ExpertPart)]
    _check_experts(recipe, named, before, pool)
    return row


def _row_of_mix(folder: Path, mix: MixFile, pool: Pool) -> Row:
    hashes = {member.name: member.sha256 for member in mix.members}
    _check_experts(folder / MIX, list(hashes), hashes, pool)
    if any(member.value for member in mix.members) and mix.candidates != pool.candidates:
        raise UserError(f"{folder / MIX}: was found with pool.candidates: {mix.candidates}; set it to the same")
    return Row(tuple((ExpertVector(member.name), member.coefficient) for member in mix.members))


def _check_experts(source: Path, named: Sequence[str], hashes: Mapping[str, str], pool: Pool) -> None:
    """Check that a pool has the experts that a recipe names, with the same content."""
    missing = [name for name in named if name not in pool.names]
    if missing:
        raise UserError(f"{source}: needs expert {missing[0]}, the pool has {', '.join(pool.names)}")
    changed = [expert.name for expert in pool.experts if hashes.get(expert.name, expert.sha256) != expert.sha256]
    if changed:
        raise UserError(f"{source}: the pool has another {changed[0]} than the recipe (its content hash differs)")


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
    tasks: dict[str, UtilityConfig] = {config.name: config.utility}
    if isinstance(config.utility, MultiTask):
        tasks = {f"{config.name}/{name}": task for name, task in config.utility.tasks.items()}
    return [_column(config.with_(utility=task.with_(penalty=None)), name, pool) for name, task in tasks.items()]


def _column(config: RunConfig, task: str, folder: Path | str) -> Column:
    opened = open_pool(config.pool.with_(experts=folder, include_base=False), model=config.model)
    require_installable(config, opened)
    rows = {BASE_MODEL: None, **{name: Row.one(name) for name in opened.names}}
    config, utility = settled(config, opened, make_utility(config.utility, root=config.root))
    with closing(local_backend(config, opened, utility)) as backend:
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
