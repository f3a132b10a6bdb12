"""From single results to the comparison: one line per method and target, and one over all targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evoswarm.compare.methods import all_methods
from evoswarm.compare.statistics import Bootstrap, interval
from evoswarm.compare.units import Result
from evoswarm.config.compare import CompareConfig
from evoswarm.loop.inputs import versions

REFERENCES = ("best_expert", "random_search")
"""The gain of each method over these is shown, paired."""
Line = dict[str, Any]
Means = dict[str, tuple[float, np.ndarray]]
"""The mean of each method, and its resampled means."""


def summarize(
    config: CompareConfig,
    methods: Sequence[str],
    missing: dict[str, str],
    failed: dict[str, str],
    results: list[Result],
) -> dict[str, Any]:
    """The content of `compare.json`."""
    targets: dict[str, Any] = {}
    means: dict[str, Means] = {}
    for number, target in enumerate(config.targets):
        of = {name: [r for r in results if r["target"] == target and r["method"] == name] for name in methods}
        of = {name: sorted(found, key=lambda r: r["seed"] or 0) for name, found in of.items() if _whole(found)}
        if of:
            means[target] = _means(of, len(config.comparison.seeds), number)
            targets[target] = {
                "split": _split(of),
                "lines": [_line(name, found, means[target]) for name, found in of.items()],
                "curves": {name: _curve(found) for name, found in of.items()},
            }
    return {
        "name": next(iter(config.targets.values())).name,
        "budget": config.comparison.budget,
        "seeds": config.comparison.seeds,
        "methods": {name: all_methods()[name].what for name in methods},
        "left_out": missing,
        "failed": failed,
        "targets": targets,
        "overall": _overall(methods, list(means.values())) if len(means) > 1 else [],
        "versions": versions(),
    }


def _whole(found: list[Result]) -> bool:
    return bool(found) and all(result.get("scores") for result in found)


def _split(of: dict[str, list[Result]]) -> str:
    return str(next(iter(of.values()))[0]["split"])


def _means(of: dict[str, list[Result]], seeds: int, number: int) -> Means:
    split = _split(of)
    tables = {name: np.array([r["scores"] for r in found]) for name, found in of.items()}
    utilities = {name: np.array([[r[split]] for r in found]) for name, found in of.items()}
    # If the utility is not a mean over examples, whole utilities are resampled, over seeds only.
    plain = all(np.allclose(tables[name].mean(axis=1), utilities[name][:, 0], atol=1e-9) for name in of)
    tables = tables if plain else utilities
    bootstrap = Bootstrap(seeds=seeds, examples=next(iter(tables.values())).shape[1], seed=number)
    # A method with fewer seeds than the others failed with some of them, so it cannot be paired.
    return {
        name: (float(utilities[name].mean()), bootstrap.means(table))
        for name, table in tables.items()
        if len(table) == (seeds if all_methods()[name].seeded else 1)
    }


def _line(name: str, found: list[Result], means: Means) -> Line:
    return _compared(means, name) | {
        "validation": _mean([result["validation"] for result in found]),
        "evaluations": float(np.mean([result["evaluations"] for result in found])),
        "seconds": float(np.mean([result["seconds"] for result in found])),
        "seeds": len(found) if all_methods()[name].seeded else None,
        "by_seed": [result[result["split"]] for result in found],
    }


def _compared(means: Means, name: str) -> Line:
    """The method's utility, and its gain over each reference, as intervals."""
    line: Line = {"method": name, "utility": asdict(interval(*means[name])) if name in means else None}
    for reference in REFERENCES:
        gain = None
        if name != reference and name in means and reference in means:
            (mine, mine_means), (other, other_means) = means[name], means[reference]
            gain = asdict(interval(mine - other, mine_means - other_means))
        line[f"over_{reference}"] = gain
    return line


def _overall(methods: Sequence[str], targets: list[Means]) -> list[Line]:
    """The mean over targets. Seeds and examples of each target are drawn independently."""
    complete = [name for name in methods if all(name in means for means in targets)]
    both: Means = {
        name: (
            float(np.mean([means[name][0] for means in targets])),
            np.mean([means[name][1] for means in targets], axis=0),
        )
        for name in complete
    }
    return [_compared(both, name) for name in complete]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _curve(found: list[Result]) -> list[list[float]]:
    """[evaluations, best validation utility so far], the mean over seeds."""
    curves = [result["curve"] for result in found]
    if not all(curves):
        return []
    grid = sorted({n for curve in curves for n, _ in curve if n >= max(c[0][0] for c in curves)})
    return [[n, float(np.mean([max(best for at, best in curve if at <= n) for curve in curves]))] for n in grid]
