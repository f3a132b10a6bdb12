"""Recipes as input: what `recipe.json` says, and the coefficients from which a search starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, Row
from evoswarm.search.config import STARTS
from evoswarm.weights.expert import read_json


def read_recipe(path: Path) -> tuple[Row, dict[str, Any]]:
    """The row of a recipe, and the whole recipe.

    Raises:
        UserError: it is missing, not a recipe, or damaged.
    """
    data = read_json(path)
    if "terms" not in data:
        raise UserError(f"{path}: not a recipe (no `terms`); give the recipe.json of a run")
    try:
        row = Row.from_list(data["terms"])
        finite = all(math.isfinite(coefficient) for _, coefficient in row.terms)
    except (AttributeError, KeyError, TypeError, ValueError):
        finite = False
    if not finite or not isinstance(data.get("pool", {}), dict):
        raise UserError(f"{path}: damaged; copy the recipe.json of the run again")
    return row, data


def start_of(path: Path) -> dict[str, float]:
    """The experts' coefficients of a recipe, or of the one in a run directory.

    Raises:
        UserError: it cannot be read, holds more than experts, or no expert at all.
    """
    path = path / "recipe.json" if path.is_dir() else path
    if not path.exists():
        raise UserError(f"search.start: there is no recipe {path}; give {', '.join(STARTS)}, a mapping, or its path")
    row, _ = read_recipe(path)
    experts: dict[str, float] = {}
    for vector, coefficient in row.terms:
        if not isinstance(vector, ExpertVector):
            raise UserError(
                f"search.start: {path} has more than whole experts (noise, spans of layers, masks), from which "
                "a search cannot start; write the coefficients of its experts as a mapping, {code: 0.6, math: 0.4}"
            )
        experts[vector.name] = experts.get(vector.name, 0.0) + coefficient
    if not experts:
        raise UserError(f"search.start: {path} is the base model, without any expert; leave `start` out")
    return dict(experts)
