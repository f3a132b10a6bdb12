"""Test utility of soups and searches in both spaces, on toy experts with the same first A and with unrelated A.

Rerun the command to resume it, or to add methods. Every result is kept in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common import close, show
from evoswarm.compare.run import compare
from evoswarm.config.compare import parse_compare
from evoswarm.toy import world
from evoswarm.toy.config import target_config

POOLS = ("experts", "unrelated")
SPACES = ("factors", "product")
SOUPS = ("best_expert", "uniform_soup", "greedy_soup")
SEARCHES = ("model_swarms", "genome", "genome_plus", "cma_es", "evolmerge", "lorahub", "random_search")
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
    rows: list[dict[str, Any]] = []
    for pool in POOLS:
        for space in SPACES:
            summary = measured(pool, space, arguments)
            rows += [row(pool, space, line) for line in summary["targets"][arguments.target]["lines"]]
            show(f"{pool} in {space} space: test utility, {arguments.seeds} seeds", rows[-len(summary["methods"]) :])
    utility = {(r["pool"], r["space"], r["method"]): r["test"] for r in rows}
    gains = {f"{p} {m}": value - utility[p, "factors", m] for (p, s, m), value in utility.items() if s == "product"}
    close("space", ratio=None, goal="product space is better for unrelated A, and not worse for related ones", **gains)


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


def row(pool: str, space: str, line: dict[str, Any]) -> dict[str, Any]:
    """One line of a table: mean and 95 % bootstrap interval over seeds and examples."""
    utility = line["utility"]
    return {
        "pool": pool,
        "space": space,
        "method": line["method"],
        "test": utility["mean"],
        "low": utility["low"],
        "high": utility["high"],
        "validation": line["validation"],
    }


if __name__ == "__main__":
    main()
