"""Searches where mixing is hard or hopeless: many experts, useless experts, one good expert, nothing to gain.

Every seed redraws the questions. Each row is measured once per scenario and seed, for all methods. Rerun the command to
resume it. Pools and results (JSON lines, with the score of every test question) are kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import close, show
from benchmarks.pools import make_pool
from evoswarm.backend import Evaluation, Job
from evoswarm.backend.local import LocalBackend
from evoswarm.config.load import parse_config
from evoswarm.loop.outcomes import outcomes_of
from evoswarm.loop.row_cache import digests
from evoswarm.report.statistics import interval, resampled_means
from evoswarm.rows import Row
from evoswarm.search import SEARCHES, Search, make_search
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS, Target, make_target
from evoswarm.utility import Split, make_utility
from evoswarm.weights.pool import open_pool

SINGLE = "one"
"""A target that needs one skill."""


@dataclass(frozen=True)
class Scenario:
    """What is hard, the pool and the target in which it is, and the evaluations of each method."""

    what: str
    pool: str
    target: str = "office"
    budget: int = 40


SCENARIOS = {
    "unrelated": Scenario("ten experts, each trained from an A of its own", "unrelated"),
    "useless": Scenario("ten experts and ten useless ones", "useless", budget=50),
    "one": Scenario("one expert is what the target needs", "experts", target=SINGLE),
    "nothing": Scenario("no expert knows the target", "strangers", target="people"),
    "twenty": Scenario("two experts per skill", "twenty", budget=50),
    "forty": Scenario("two experts per skill and twenty useless ones", "forty", budget=80),
    "three": Scenario("three skills must be combined", "experts", target="trio"),
}
METHODS = ("greedy_soup", "bayes", "random_search", "model_swarms", "cma_es", "genome_plus")
REFERENCES = ("base", "best_expert")
"""Both are by-products of the greedy soup."""


class World:
    """One scenario with the questions of one seed. Every row is measured once on each split."""

    def __init__(self, scenario: Scenario, *, seed: int, folder: Path) -> None:
        targets = TARGETS | {SINGLE: Target({"max": 1})}
        questions = folder / f"{scenario.target}-{seed}.json"
        questions.write_text(json.dumps(make_target(scenario.target, seed=seed, targets=targets)))
        choice = targets[scenario.target].multiple_choice
        data = target_config("people" if choice else "office", algorithm="bayes")
        data["utility"]["data"] = str(questions)
        data["pool"] = {"experts": str(make_pool(scenario.pool, folder / "pools")), "space": "product"}
        config = parse_config(data, root=folder)
        self.utility = make_utility(config.utility, root=folder)
        self.pool = open_pool(config.pool, model=config.model)
        self.backend = LocalBackend(config, pool=self.pool, utility=self.utility)
        self._known: dict[tuple[str, Split], Evaluation] = {}
        self._rounds = 0

    def measure(self, basis: Sequence[Any], rows: np.ndarray, split: Split = "validation") -> list[Evaluation]:
        """The evaluations of rows [M, J], in their order."""
        names = digests(basis, rows)
        missing = {name: row for name, row in zip(names, rows, strict=True) if (name, split) not in self._known}
        self._rounds += 1
        jobs = [Job((self._rounds, name), Row.of(basis, row), split, logprobs=True) for name, row in missing.items()]
        for evaluation in self.backend.evaluate(jobs):
            self._known[evaluation.key[1], split] = evaluation
        return [self._known[name, split] for name in names]

    def search(self, kind: str, *, seed: int, budget: int) -> Search:
        """A finished search with the settings of `evoswarm compare`."""
        config_class, experts = SEARCHES[kind].config_class, len(self.pool.names)
        settings = {"type": kind} | config_class(type=kind).at_budget(budget, experts=experts)
        search = make_search(config_class(**settings), experts=self.pool.names, seed=seed, layers=self.pool.layers)
        while search.stop_reason is None:
            found = self.measure(search.basis, search.ask().rows)
            outcomes = outcomes_of(found, self.utility) if search.config.outcomes else None
            search.tell([evaluation.utility for evaluation in found], outcomes)
        return search

    def result(self, search: Search, row: np.ndarray) -> dict[str, Any]:
        """Utilities of a row on both splits, and the scores on test."""
        validation, test = (self.measure(search.basis, row[None, :], split)[0] for split in ("validation", "test"))
        return {"validation": validation.utility, "test": test.utility, "scores": test.scores}


def main() -> None:
    """Measure, then print a table per scenario that is complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/search"))
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--methods", default=",".join(METHODS), help="greedy_soup also gives base and best expert")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path, methods = arguments.output.resolve() / "results.jsonl", arguments.methods.split(",")
    for name in arguments.scenarios.split(","):
        for seed in range(arguments.seeds):
            measure(name, seed, methods, path)
        figures = table(name, read(path), seeds=arguments.seeds)
        show(f"{name}: {SCENARIOS[name].what}; {SCENARIOS[name].target}, {SCENARIOS[name].budget} evaluations", figures)
    close("search", ratio=None, goal="bayes is above every other method, or level where nothing can be gained")


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(name: str, seed: int, methods: Sequence[str], path: Path) -> None:
    """Append the results of the methods that have none."""
    done = {line["method"] for line in read(path) if (line["scenario"], line["seed"]) == (name, seed)}
    if not (todo := [method for method in methods if method not in done]):
        return
    scenario, world = SCENARIOS[name], World(SCENARIOS[name], seed=seed, folder=path.parent)
    for method in todo:
        search = world.search(method, seed=seed, budget=scenario.budget)
        best, size = search.global_best, len(world.pool.names)
        assert best is not None
        results = {method: world.result(search, best.row) | {"evaluations": search.state.evaluations}}
        if method == "greedy_soup":
            expert = np.eye(size)[np.argmax(search.expert_utilities)]
            results["best_expert"] = world.result(search, expert) | {"evaluations": size}
            results["base"] = world.result(search, np.zeros(size)) | {"evaluations": 1}
        with path.open("a") as file:
            for one, result in results.items():
                file.write(json.dumps({"scenario": name, "seed": seed, "method": one} | result) + "\n")
    world.backend.close()


def table(name: str, lines: list[dict[str, Any]], *, seeds: int) -> list[dict[str, Any]]:
    """Test utility per method, and what bayes gains over it, with intervals over seeds and their questions."""
    lines = [line for line in lines if line["scenario"] == name and line["seed"] < seeds]
    by_method = {one: [line for line in lines if line["method"] == one] for one in (*REFERENCES, *METHODS)}
    complete = {one: sorted(found, key=lambda r: r["seed"]) for one, found in by_method.items() if len(found) == seeds}
    scores = {one: [np.array(line["scores"]) for line in found] for one, found in complete.items()}
    means = resampled_means(scores, redrawn=True)
    rows = []
    for one, found in complete.items():
        test = float(np.mean([line["test"] for line in found]))
        row = {"method": one, "evaluations": np.mean([line["evaluations"] for line in found]), "test": test}
        row["validation"] = np.mean([line["validation"] for line in found])
        ours = complete.get("bayes", found)
        gain = float(np.mean([line["test"] for line in ours])) - test
        gains = means["bayes" if "bayes" in complete else one] - means[one]
        by_seed = [f"{mine['test'] - its['test']:+.3f}" for mine, its in zip(ours, found, strict=True)]
        rows.append(row | {"bayes minus it": interval(gain, gains).signed, "by seed": " ".join(by_seed)})
    return rows


if __name__ == "__main__":
    main()
