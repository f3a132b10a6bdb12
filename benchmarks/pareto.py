"""Several objectives: the hypervolume of the front that each way of searching finds, at equal evaluations.

Two tasks of the toy world, ten experts in product space. Every seed redraws the questions of both tasks. A row is
measured once per seed, for all methods; all methods start from the same measured experts. Three runs of a search for
one objective, with weights 0.2, 0.5 and 0.8 of the first task, share the budget and the experts. The front is chosen on
validation and measured on test. Rerun the command to resume it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import close, show
from benchmarks.search import read
from evoswarm.backend import Evaluation, Job
from evoswarm.backend.local import LocalBackend
from evoswarm.config.load import parse_config
from evoswarm.loop.outcomes import outcomes_of, task_utilities
from evoswarm.report.statistics import interval, resampled_means
from evoswarm.rows import Row
from evoswarm.search import SEARCHES, Outcomes, make_search
from evoswarm.search.dominance import hypervolume, nondominated, thinned
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import make_target
from evoswarm.utility import Split, make_utility
from evoswarm.weights.pool import open_pool

TASKS = ("trio", "office")
WEIGHTS = (0.2, 0.5, 0.8)
"""Of the first task, for searches of one objective."""
SMALL = 8
"""Population of a search that has a third of the budget: with its own it would end after the first population."""
SHOWN = 8
"""Most rows of a front that are measured on test."""
ORIGIN = np.zeros(2)
"""Reference point of the hypervolume."""


Block = list[tuple[Row, list[float]]]
"""Rows with the utility of each task on validation."""


class TwoTasks:
    """The questions of one seed, as a multi_task utility. Every row is measured once on each split."""

    def __init__(self, *, seed: int, folder: Path, validation: int, test: int) -> None:
        tasks: dict[str, Any] = {}
        for name in TASKS:
            data = target_config(name, algorithm="bayes")
            path = folder / f"{name}-{seed}.json"
            path.write_text(json.dumps(make_target(name, seed=seed)))
            tasks[name] = data["utility"] | {"data": {"path": str(path), "limit": validation, "test_limit": test}}
        data |= {"utility": {"type": "multi_task", "combine": "weighted_sum", "tasks": tasks}}
        data["pool"] = {"experts": data["pool"], "space": "product"}
        config = parse_config(data, root=folder)
        self.utility = make_utility(config.utility, root=folder)
        self.pool = open_pool(config.pool, model=config.model)
        self.backend = LocalBackend(config, pool=self.pool, utility=self.utility)
        self.seed, self.size = seed, len(self.pool.names)
        self._known: dict[tuple[Row, Split], Evaluation] = {}

    def measure(self, rows: Sequence[Row], split: Split) -> list[Evaluation]:
        """The evaluations of rows, in their order."""
        missing = [row for row in dict.fromkeys(rows) if (row, split) not in self._known]
        jobs = [Job((row, split), row, split, logprobs=split == "validation") for row in missing]
        for evaluation in self.backend.evaluate(jobs):
            self._known[evaluation.key] = evaluation
        return [self._known[row, split] for row in rows]

    def tasks(self, rows: Sequence[Row], split: Split) -> list[list[float]]:
        """The utility of each task."""
        return [list(task_utilities(e, self.utility, split).values()) for e in self.measure(rows, split)]

    def run(self, kind: str, *, budget: int, weight: float = 0.5, **more: Any) -> Block:
        """Everything that a search measures; `weight` is that of the first task."""
        config_class = SEARCHES[kind].config_class
        settings = {"type": kind} | config_class(type=kind).at_budget(budget, experts=self.size)
        settings |= ({"population": SMALL} if kind in ("model_swarms", "genome") else {}) | more
        search = make_search(config_class(**settings), experts=self.pool.names, seed=self.seed)
        found: Block = []
        while search.stop_reason is None:
            rows = [Row.of(search.basis, row) for row in search.ask().rows]
            outcomes = _weighed(outcomes_of(self.measure(rows, "validation"), self.utility), weight)
            found += zip(rows, outcomes.objectives.tolist(), strict=True)
            utilities = outcomes.objectives @ [weight, 1 - weight] if rows else []
            search.tell(list(utilities), outcomes)
        return found

    def three(self, kind: str, budget: int) -> Block:
        """Three runs with different weights, whose experts are measured once."""
        each = self.size + (budget - self.size) // 3
        return [line for weight in WEIGHTS for line in self.run(kind, budget=each, weight=weight)]


def _weighed(outcomes: Outcomes, weight: float) -> Outcomes:
    """The same outcomes under another weight of the first task."""
    half = len(outcomes.weights) // 2
    each = np.concatenate([np.full(half, weight / half), np.full(half, (1 - weight) / half)])
    return replace(outcomes, weights=each)


def methods(budget: int) -> dict[str, Callable[[TwoTasks], Block]]:
    """What is compared."""
    return {
        "experts and their mean": lambda world: world.run("uniform_soup", budget=world.size + 1),
        "experts and 3 greedy soups": lambda world: world.three("greedy_soup", 4 * world.size),
        "random_search": lambda world: world.run("random_search", budget=budget),
        "3 x model_swarms": lambda world: world.three("model_swarms", budget),
        "3 x genome": lambda world: world.three("genome", budget),
        "3 x bayes": lambda world: world.three("bayes", budget),
        "nsga2": lambda world: world.run("nsga2", budget=budget),
        "nsga2, no mutation": lambda world: world.run("nsga2", budget=budget, mutation_rate=0.0),
        "nsga2, no mutation, blend 0": lambda world: world.run("nsga2", budget=budget, mutation_rate=0.0, blend=0.0),
        "pareto_swarms": lambda world: world.run("pareto_swarms", budget=budget),
    }


def main() -> None:
    """Measure, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/pareto"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--validation", type=int, default=100, help="validation questions per task")
    parser.add_argument("--test", type=int, default=300, help="test questions per task")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output.resolve() / "results.jsonl"
    for seed in range(arguments.seeds):
        measure(seed, arguments, path)
        show(f"{seed + 1} seed(s), {arguments.budget} evaluations", table(read(path), seeds=seed + 1))
    close("pareto", ratio=None, goal="searches for several objectives find the larger hypervolume")


def measure(seed: int, arguments: Any, path: Path) -> None:
    """Append the results of the methods that have none."""
    done = {line["method"] for line in read(path) if line["seed"] == seed}
    todo = {name: run for name, run in methods(arguments.budget).items() if name not in done}
    if not todo:
        return
    world = TwoTasks(seed=seed, folder=path.parent, validation=arguments.validation, test=arguments.test)
    for name, run in todo.items():
        block = run(world)
        rows, vectors = [row for row, _ in block], np.array([found for _, found in block])
        front = np.flatnonzero(nondominated(vectors))
        chosen = front[thinned(vectors[front], SHOWN, keep=0)]
        test = world.tasks([rows[i] for i in chosen], "test")
        result = {
            "seed": seed,
            "method": name,
            "evaluations": len(set(rows)),
            "front": len(front),
            "validation": hypervolume(vectors[front], ORIGIN),
            "test": hypervolume(np.array(test), ORIGIN),
            "objectives": {"validation": vectors[chosen].tolist(), "test": test},
        }
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
    world.backend.close()


def table(lines: list[dict[str, Any]], *, seeds: int) -> list[dict[str, Any]]:
    """Hypervolume per method, and what nsga2 has more than it, with intervals over seeds."""
    lines = [line for line in lines if line["seed"] < seeds]
    names = list(dict.fromkeys(line["method"] for line in lines))
    of = {name: sorted((line for line in lines if line["method"] == name), key=lambda r: r["seed"]) for name in names}
    of = {name: found for name, found in of.items() if len(found) == seeds}
    means = resampled_means({name: [np.array([line["test"]]) for line in found] for name, found in of.items()})
    rows = []
    for name, found in of.items():
        row: dict[str, Any] = {"method": name}
        row |= {key: float(np.mean([line[key] for line in found])) for key in ("evaluations", "front")}
        row |= {key: float(np.mean([line[key] for line in found])) for key in ("validation", "test")}
        for ours in ("nsga2", "pareto_swarms"):
            if ours in of:
                gain = float(np.mean([line["test"] for line in of[ours]])) - row["test"]
                row[f"{ours} minus it"] = interval(gain, means[ours] - means[name]).signed
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
