"""Run configs for the toy world's targets."""

from __future__ import annotations

from typing import Any

from evoswarm.toy import world
from evoswarm.toy.targets import TARGETS


def target_config(target: str, *, algorithm: str) -> dict[str, Any]:
    """The config of a run on one target, with the algorithm's default settings."""
    folder = world()
    utility: dict[str, Any] = {"data": str(folder / "targets" / f"{target}.json"), "prompt": {"chat_template": True}}
    if TARGETS[target].multiple_choice:
        utility |= {"type": "multiple_choice", "options": "texts"}
        batch_size = 200  # four options each
    else:
        utility |= {"type": "exact_match", "max_new_tokens": 8}
        batch_size = 50
    return {
        "name": f"{target}-{algorithm}",
        "model": str(folder / "base"),
        "pool": str(folder / "experts"),
        "search": {"type": algorithm},
        "utility": utility,
        "engine": {"batch_size": batch_size},
    }
