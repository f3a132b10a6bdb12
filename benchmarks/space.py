"""Test utility of soups and searches in both spaces, on toy experts with the same first A and with unrelated A.

Rerun the command to resume it, or to add methods. Every result is kept in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.common import close, show
from evoswarm.compare.run import compare
from evoswarm.config.compare import parse_compare
from evoswarm.toy import world
from evoswarm.toy.config import target_config

POOLS = ("experts", "unrelated")
SPACES = ("factors", "product")
SOUPS = ("best_expert", "uniform_soup", "greedy_soup")
SEARCHES = ("bayes", "model_swarms", "genome", "genome_plus", "cma_es", "evolmerge", "lorahub", "random_search")
FINALISTS = {"ensemble_size": 1}
"""Votes of several particles are not compared."""


def main() -> None:
    """Measure each pool in each space; the interval of a gain pairs seeds and examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/space"))
    parser.add_argument("--target", default="office")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=60, help="evaluations per method")
    parser.add_argument("--methods", default=",".join(SOUPS + SEARCHES))
    arguments = parser.parse_args()
    gains: list[dict[str, Any]] = []
    for pool in POOLS:
        lines: dict[str, dict[str, dict[str, Any]]] = {}
        for space in SPACES:
            found = measured(pool, space, arguments)["targets"][arguments.target]["lines"]
            lines[space] = {line["method"]: line for line in found}
            show(f"{pool} in {space} space: test utility, {arguments.seeds} seeds", [row(line) for line in found])
        pairs = {name: (lines["factors"][name], line) for name, line in lines["product"].items()}
        gains += [{"pool": pool, "method": name} | gain(*pair) for name, pair in pairs.items()]
    show("gain of product space", gains)
    figures = {f"{line['pool']} {line['method']}": line["gain"] for line in gains}
    close("space", ratio=None, goal="product space is better for unrelated A, not worse for related ones", **figures)


def measured(pool: str, space: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The comparison of all methods on one pool in one space."""
    data = target_config(arguments.target, algorithm="model_swarms")
    utility = data.pop("utility")
    del data["search"]
    methods = arguments.methods.split(",")
    section = {
        "methods": methods,
        "seeds": list(range(arguments.seeds)),
        "budget": arguments.budget,
        "searches": {name: FINALISTS for name in methods if name in SEARCHES},
        "targets": {arguments.target: utility},
    }
    data |= {"name": f"{pool}-{space}", "output": str(arguments.output), "backend": {"type": "local"}}
    data |= {"pool": {"experts": str(world() / pool), "space": space}, "compare": section}
    return compare(parse_compare(data, root=Path.cwd()))


def row(line: dict[str, Any]) -> dict[str, Any]:
    """One line of a table: mean and 95 % bootstrap interval over seeds and examples."""
    utility = line["utility"]
    figures = {"test": utility["mean"], "low": utility["low"], "high": utility["high"]}
    return {"method": line["method"]} | figures | {"validation": line["validation"]}


def gain(factors: dict[str, Any], product: dict[str, Any]) -> dict[str, Any]:
    """The mean difference of a method over its seeds, and its 95 % t interval."""
    differences = np.subtract(product["by_seed"], factors["by_seed"])
    low, high = "-", "-"
    if len(differences) > 1:
        margin = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
        low, high = (f"{differences.mean() + sign * margin:.3f}" for sign in (-1, 1))
    return {"gain": float(differences.mean()), "low": low, "high": high}


if __name__ == "__main__":
    main()
