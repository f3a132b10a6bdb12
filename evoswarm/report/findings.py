"""Applies the analyses to a run, for plots and text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from evoswarm.errors import UserError
from evoswarm.loop.baselines import restore
from evoswarm.report.analysis import Emergence, Flips, emergence, flips, rank
from evoswarm.report.read import Measurement, Run, predictions
from evoswarm.search.operators import first_experts
from evoswarm.search.state import FAILED
from evoswarm.utility import Utility, make_utility

MAX_COMPARED = 11
"""The maximum number of finalists that are compared with the best expert."""


def track(run: Run, particle: int) -> list[Measurement | None]:
    """The evaluation of a persistent particle in each generation; None if it was not evaluated."""
    phases = {"population", "move"}
    found = [next((m for m in line if m.particle == particle and m.phase in phases), None) for line in run.measured]
    if found and found[0] is None:  # it started as an expert
        utilities = np.array([FAILED if m.utility is None else m.utility for m in run.initial])
        order = first_experts(utilities, run.config.search.expert_places)
        found[0] = run.initial[order[particle]] if particle < len(order) else None
    return found


@lru_cache(maxsize=2)
def emergence_of(run: Run) -> Emergence | None:
    """C-emergence of a run; None if it does not apply."""
    bests = [best.scores if best is not None else None for best in run.bests]
    return emergence([m.scores for m in run.initial], [[m.scores for m in line] for line in run.measured], bests)


def compared_pair(run: Run) -> tuple[Measurement, Measurement] | None:
    """The best initial expert and the winner on the same split: test, or validation if there is no test."""
    finals = [(run.finals.get(("best_expert", s)), run.finals.get(("ensemble:0", s))) for s in ("test", "validation")]
    for before, after in [*finals, (run.best_expert, run.winner)]:
        if before is not None and after is not None:
            comparable = len(before.scores) == len(after.scores) > 0 and emergence_of(run) is not None
            return (before, after) if comparable else None
    return None


def finalist_flips(run: Run) -> list[tuple[str, Flips]]:
    """Flips against the best initial expert: the winner, then the other finalists, then the base."""
    pair = compared_pair(run)
    if pair is None:
        return []
    before, winner = pair
    who = "row" if run.config.search.several else "voter"
    others = [(f"{who} {i + 1}", run.finals.get((f"ensemble:{i}", winner.split))) for i in range(1, MAX_COMPARED - 1)]
    lines = [("winner", winner), *others, ("base model", run.finals.get(("base", winner.split)))]
    return [(name, flips(before.scores, m.scores)) for name, m in lines if m and len(m.scores) == len(before.scores)]


@dataclass(frozen=True)
class Origin:
    """The origin of the winner: utilities to rank, the marked ones, the axis label, and a sentence."""

    utilities: tuple[float | None, ...]
    marked: tuple[int, ...]
    label: str
    sentence: str


def origin_of(run: Run, winner: Measurement) -> Origin:
    """The rank of the winning particle in the first population or, if particles do not persist, of its experts."""
    if run.persistent and run.start:
        return _particle_origin(run.start, winner)
    return _recipe_origin(run, winner)


def _particle_origin(utilities: tuple[float | None, ...], winner: Measurement) -> Origin:
    index = winner.particle if winner.phase != "experts" else utilities.index(winner.utility)
    place = rank(utilities, index)
    began = "failed" if utilities[index] is None else f"{utilities[index]:.4f}"
    shared = f", a place shared with {place.shared} other{'s' * (place.shared > 1)}" if place.shared else ""
    half = "lower half: a diamond in the rough" if place.place > place.of / 2 else "upper half"
    return Origin(
        utilities,
        (index,),
        f"rank in generation 0 (1 is the best of {place.of})",
        f"The winner is particle {index}. In generation 0 it was number {place.place} of {place.of} "
        f"({began}{shared}), in the {half}.",
    )


def _recipe_origin(run: Run, winner: Measurement) -> Origin:
    utilities = tuple(m.utility for m in run.initial)
    terms = sorted(winner.experts.items(), key=lambda item: -abs(item[1]))
    used = [(run.experts.index(name), name, value) for name, value in terms]
    shown = ", ".join(f"{name} ({value:+.2f}) was number {rank(utilities, j).place}" for j, name, value in used[:5])
    more = f", and {len(used) - 5} more" if len(used) > 5 else ""
    return Origin(
        utilities,
        tuple(j for j, _, _ in used[:5]),
        f"rank among the initial experts (1 is the best of {len(utilities)})",
        f"Particles of {run.config.search.type} have no identity over generations, so this shows the experts that "
        f"weigh most in the winner's recipe. Of {len(utilities)} initial experts {shown}{more}.",
    )


MAX_EXAMPLES = 20


def open_utility(run: Run) -> tuple[Utility | None, str | None]:
    """The utility of a run, or None and the reason why its texts cannot be shown."""
    try:
        utility = make_utility(run.config.utility, root=run.config.root)
    except (UserError, OSError) as error:
        return None, f"the data can no longer be read: {error}"
    if run.hashes[""] and utility.sha256 != run.hashes[""]:
        return None, "the data has changed since the run started"
    if run.finals and not restore(utility, run.directory):
        return None, "the records of the models that the utility compares with are missing"
    return utility, None


def flip_examples(pair: tuple[Measurement, Measurement] | None, utility: Utility | None) -> list[dict[str, Any]]:
    """Up to 20 negative flips; they have no texts if there is no utility."""
    if pair is None:
        return []
    before, after = pair
    lost = flips(before.scores, after.scores).lost[:MAX_EXAMPLES]
    answers = (predictions(before), predictions(after)) if lost else ([], [])
    split: Any = after.split
    examples = {i: utility.example(split, i) if utility else {} for i in lost}
    return [
        {
            "id": example.get("id", i),
            "question": example.get("question"),
            "answer": example.get("answer"),
            "before": answers[0][i],
            "after": answers[1][i],
            "scores": (float(before.scores[i]), float(after.scores[i])),
        }
        for i, example in examples.items()
    ]


def task_table(run: Run, utility: Utility | None) -> list[dict[str, Any]]:
    """Utilities per task of a multi-task run: base, best expert and winner, on test if possible."""
    if utility is None:
        return []
    split: Any = "test" if ("ensemble:0", "test") in run.finals else "validation"
    who = {"base": "base", "expert": "best_expert", "winner": "ensemble:0"}
    finals = {key: run.finals.get((name, split)) for key, name in who.items()}
    measured = {key: m.scores.astype(float).tolist() for key, m in finals.items() if m and m.utility is not None}
    known = {key: utility.task_utilities(split, scores) for key, scores in measured.items()}
    names: dict[str, float] = next(iter(known.values()), {})
    return [{"task": task, "split": split, **{key: known.get(key, {}).get(task) for key in who}} for task in names]
