"""The rows of the models that a utility compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evoswarm.config.recipe import read_recipe
from evoswarm.errors import UserError, did_you_mean
from evoswarm.rows import ExpertPart, Row, SavedVector
from evoswarm.utility import SPLITS, Split, Utility
from evoswarm.weights.pool import Pool

Baseline = tuple[str, Row | None]
"""A name of `Utility.baselines` and a row of it; `experts` has several."""


def baseline_rows(utility: Utility, split: Split, *, pool: Pool, root: Path) -> list[Baseline]:
    """What must be measured on a split before the utility has values. `root` is for relative paths of recipes.

    Raises:
        UserError: a name is neither an expert nor a recipe of this pool.
    """
    found: list[Baseline] = []
    for name in utility.baselines(split):
        rows = [Row.one(expert) for expert in pool.names] if name == "experts" else [_row(name, pool, root)]
        found += [(name, row) for row in rows]
    return found


def compared(utility: Utility, *, pool: Pool, root: Path) -> dict[str, Any]:
    """`baselines`: what the utility compares with, as plain JSON for the identity of a result; empty if it does not.

    Raises like `baseline_rows`.
    """
    rows = [each for split in SPLITS for each in baseline_rows(utility, split, pool=pool, root=root)]
    return {"baselines": [[name, row and row.to_list()] for name, row in rows]} if rows else {}


def _row(name: str, pool: Pool, root: Path) -> Row | None:
    if name == "base":
        return None
    if name in pool.names:
        return Row.one(name)
    path = root / Path(name).expanduser()
    path = path / "recipe.json" if path.is_dir() else path
    if not path.exists():
        hint = did_you_mean(name, ["base", *pool.names], kind="names")
        raise UserError(f"utility.penalty.against: {name!r} is neither base, an expert, nor a recipe; {hint}")
    row, data = read_recipe(path)
    if data.get("space") not in (None, pool.space_name):
        raise UserError(
            f"utility.penalty.against: {path} is mixed in {data['space']} space, this pool in {pool.space_name} space; "
            f"set pool.space: {data['space']}"
        )
    hashes, known = data.get("pool", {}), pool.hashes
    for vector, _ in row.terms:
        if isinstance(vector, SavedVector):
            raise UserError(
                f"utility.penalty.against: {path} has saved mutation vectors, which are in its run directory only; put "
                "its best/ into the pool and name it"
            )
        if isinstance(vector, ExpertPart) and vector.name not in known:
            raise UserError(f"utility.penalty.against: {path} needs expert {vector.name}, which is not in this pool")
        if isinstance(vector, ExpertPart) and hashes.get(vector.name, known[vector.name]) != known[vector.name]:
            raise UserError(f"utility.penalty.against: {path} has another expert {vector.name} than this pool")
    return row
