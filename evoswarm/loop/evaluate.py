"""Measure one expert, recipe or base model outside of a run."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

from evoswarm.backend import Evaluation, Job
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, LayersVector, Row
from evoswarm.utility import Split, make_utility
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import read_json
from evoswarm.weights.pool import Pool, open_pool


def measure(config: RunConfig, *, adapter: Path | None, recipe: Path | None, split: Split) -> Evaluation:
    """Evaluate an expert folder, or a recipe over the config's pool, or (without either) the base model.

    Raises:
        UserError: the expert does not fit the base, or the recipe does not fit the pool.
    """
    from evoswarm.backend.local import LocalBackend

    utility = make_utility(config.utility, root=config.root)
    if utility.size(split) == 0:
        raise UserError(f"the config has no {split} split; set utility.data.{split}")
    if adapter is not None:
        pool = open_pool(PoolConfig(experts=[adapter.resolve()]), model=config.model, alone=True)
        row: Row | None = Row.one(pool.names[0])
    else:
        pool = open_pool(config.pool, model=config.model)
        row = _row(recipe, pool) if recipe is not None else None
    # Saved basis vectors of a recipe are in its run directory.
    root = recipe.resolve().parent if recipe is not None else None
    with closing(LocalBackend(config, pool=pool, utility=utility, root=root)) as backend:
        (evaluation,) = backend.evaluate([Job("evaluate", row, split, texts=True)])
    return evaluation


def _row(recipe: Path, pool: Pool) -> Row:
    data = read_json(recipe)
    if "terms" not in data:
        raise UserError(f"{recipe}: not a recipe (no `terms`); give the recipe.json of a run")
    before = data.get("pool", {})
    try:
        row = Row.from_list(data["terms"])
        finite = all(math.isfinite(coefficient) for _, coefficient in row.terms)
    except (KeyError, TypeError, ValueError):
        finite = False
    if not finite or not isinstance(before, dict):
        raise UserError(f"{recipe}: damaged; copy the recipe.json of the run again")
    named = [v.name for v, _ in row.terms if isinstance(v, ExpertVector | LayersVector)]
    missing = [name for name in named if name not in pool.names]
    if missing:
        raise UserError(f"{recipe}: needs expert {missing[0]}, the pool has {', '.join(pool.names)}")
    changed = [expert.name for expert in pool.experts if before.get(expert.name, expert.sha256) != expert.sha256]
    if changed:
        raise UserError(f"{recipe}: the pool has another {changed[0]} than the recipe (its content hash differs)")
    return row
