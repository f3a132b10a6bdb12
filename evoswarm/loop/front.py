"""The front of a finished run: one recipe per row in `front/`, and `front.json` with all objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evoswarm.loop.context import RunContext
from evoswarm.loop.summary import Finals, recipe_of, tasks_of, voter
from evoswarm.search import Best, Front, Search
from evoswarm.search.dominance import hypervolume
from evoswarm.utility import Split
from evoswarm.utility.types import SPLITS

FILE = "front.json"


def write_front(context: RunContext, search: Search, ranking: Sequence[Best], finals: Finals) -> dict[str, Any] | None:
    """Write the rows of the ranking, in the order of their first objective; None if the search has no front.

    The rows were chosen on validation. Recipes of an earlier end of the run are removed.

    Returns:
        The content of `front.json`.
    """
    front, directory = search.front, context.directory
    if front is None:
        return None
    for old in directory.front.glob("*.json"):
        old.unlink()
    tasks = tasks_of(context.inputs.utility, finals)
    mine = [tasks.get(voter(i), {}) for i in range(len(ranking))]
    order = sorted(range(len(ranking)), key=lambda i: [-u for u in mine[i].get("validation", {}).values()])
    rows = []
    for place, i in enumerate(order):
        name = f"{place:02}.json"
        directory.write_json(f"front/{name}", recipe_of(context, search, ranking[i]) | {"tasks": mine[i]})
        known = {"recipe": name, "winner": i == 0, "generation": ranking[i].generation, "particle": ranking[i].particle}
        rows.append(known | {"tasks": mine[i]})
    content = {
        "size": len(front.rows),
        "reference": front.to_dict()["reference"],
        "hypervolume": {"front": front.hypervolume} | {split: _volume(front, rows, split) for split in SPLITS},
        "rows": rows,
        "others": {who: tasks[who] for who in ("base", "best_expert", "greedy_soup") if who in tasks},
    }
    directory.write_json(f"front/{FILE}", content)
    return content


def _volume(front: Front, rows: Sequence[dict[str, Any]], split: Split) -> float | None:
    """The hypervolume of the written rows on a split; None if one of them was not measured on it."""
    measured = [row["tasks"].get(split) for row in rows]
    if not all(measured):
        return None
    return hypervolume(np.array([[found[task] for task in front.tasks] for found in measured]), front.reference)
