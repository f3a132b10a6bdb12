"""A small comparison on the echo world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from echo import make_world

from evoswarm.compare.methods import all_methods
from evoswarm.config.compare import CompareConfig, parse_compare
from evoswarm.config.load import apply_overrides

WITHOUT_MODEL = [
    name
    for name, method in all_methods().items()
    if not (
        method.mixes
        or method.routes
        or method.embeds
        or method.gradients
        or method.several
        or method.following
        or method.models
    )
]


FAST = {"searches": {"evogm": {"epochs": 2}}}
"""Training takes a second per generation."""


def config_of(folder: Path, *overrides: str, **section: Any) -> CompareConfig:
    if not (folder / "experts").exists():
        make_world(folder, validation=40, test=30)
    data = {
        "name": "cmp",
        "model": "no-base",
        "pool": "experts",
        "utility": {"type": "exact_match", "data": "echo.json"},
        "engine": {"type": "fake", "batch_size": 16},
        "backend": {"type": "local"},
        "compare": {"seeds": [3, 8], "budget": 60, "methods": WITHOUT_MODEL} | FAST | section,
    }
    return parse_compare(apply_overrides(data, overrides), root=folder)
