"""Checks that a utility has the objectives that a search for several objectives needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from evoswarm.errors import did_you_mean
from evoswarm.search.pareto import MOST_OBJECTIVES, Pareto
from evoswarm.utility import UtilityConfig
from evoswarm.utility.multi_task_config import MultiTask


def check_objectives(search: Pareto, utility: UtilityConfig) -> None:
    """Check a search against the utility of its run.

    Raises:
        ValueError: the utility has one objective, too many, or two equal ones, or the search names others.
    """
    if not isinstance(utility, MultiTask):
        raise ValueError(
            f"search.type {search.type} needs several objectives, and utility.type {utility.type} is one; list them as "
            "the tasks of utility.type multi_task, or use a search for one objective"
        )
    if utility.select_on is not None:
        raise ValueError(
            f"search.type {search.type} chooses its winner by search.choose or search.weights; leave out "
            "utility.select_on, and report that task with utility.evolve"
        )
    names = utility.evolved
    if len(names) == 1:
        raise ValueError(
            f"search.type {search.type} needs several objectives, and utility.evolve names one task, {names[0]}; name "
            "more, or use a search for one objective"
        )
    if len(names) > MOST_OBJECTIVES:
        raise ValueError(
            f"search.type {search.type} takes at most {MOST_OBJECTIVES} objectives, and the utility has {len(names)}; "
            "leave some out with utility.evolve, or use a search for one objective"
        )
    for (one, first), (other, second) in combinations(((name, utility.tasks[name]) for name in names), 2):
        if first == second:
            raise ValueError(f"utility.tasks: {one} and {other} are the same task, which is one objective; remove one")
    for key, given in (("weights", search.weights), ("reference", search.reference)):
        if given is not None and (problem := misnamed(given, names)):
            raise ValueError(f"search.{key}: {problem}")


def has_objectives(utility: UtilityConfig) -> bool:
    """Whether a search for several objectives can run on a utility."""
    try:
        check_objectives(Pareto(type="pareto"), utility)
    except ValueError:
        return False
    return True


def misnamed(given: Mapping[str, float], tasks: Iterable[str]) -> str | None:
    """What is wrong with the names of numbers that are given by task; None if each task has one."""
    names = list(tasks)
    for name in given:
        if name not in names:
            return f"there is no task {name!r}; {did_you_mean(name, names, kind='tasks')}"
    missing = [name for name in names if name not in given]
    return f"gives no number for {', '.join(missing)}; name every task" if missing else None
