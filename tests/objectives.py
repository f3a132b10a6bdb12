"""A run with two objectives that pull apart: repeat the last word, or say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echo import echo_config

from evoswarm.config import RunConfig

QUIET = "def score(example, response):\n    return float(response == '?')\n"


def two_tasks(folder: Path, *, validation: int = 30, test: int = 20) -> dict[str, Any]:
    """Write data and a custom function; the utility. The fake engine has a question mark for what it does not know."""
    tasks: dict[str, Any] = {}
    for start, name in enumerate(("words", "quiet")):
        splits = {
            split: [
                {"id": i, "question": f"say {name}{i}", "answer": f"{name}{i}"} for i in range(first, first + count)
            ]
            for split, first, count in (("dev", 10_000 * start, validation), ("test", 10_000 * start + 5000, test))
        }
        (folder / f"{name}.json").write_text(json.dumps({"dataset": name} | splits))
        tasks[name] = {"type": "exact_match", "data": f"{name}.json"}
    (folder / "quiet.py").write_text(QUIET)
    tasks["quiet"] = {"type": "custom", "function": "quiet:score", "data": "quiet.json"}
    return {"type": "multi_task", "tasks": tasks, "combine": "weighted_sum"}


def objectives_config(folder: Path, *overrides: str, search: str = "nsga2") -> RunConfig:
    """The validated config of a small run; the same folder has the same world."""
    echo_config(folder)  # makes the pool
    utility = json.dumps(two_tasks(folder))
    small = json.dumps({"type": search, "population": 8, "max_generations": 4})
    return echo_config(folder, f"utility={utility}", f"search={small}", *overrides)
