"""From single results to the comparison: one line per method and target, and one over all targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evoswarm.compare.methods import FOLLOWING, all_methods
from evoswarm.compare.units import Result
from evoswarm.config.compare import CompareConfig
from evoswarm.loop.inputs import versions
from evoswarm.report.statistics import Interval, interval, resampled_means

TO_BEAT = ("base", "best_expert", "greedy_soup")
"""What costs little: a method that does not beat these is not worth its cost."""
REFERENCES = (*TO_BEAT, "random_search")
"""The gain of each method over these is known, paired."""
Line = dict[str, Any]
Means = dict[str, tuple[float, np.ndarray]]
"""The mean of each method, and its resampled means."""


def summarize(
    config: CompareConfig,
    methods: Sequence[str],
    missing: dict[str, str],
    failed: dict[str, str],
    results: list[Result],
    *,
    redrawn: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of `compare.json`. `redrawn` are the targets whose seeds have questions of their own."""
    targets: dict[str, Any] = {}
    means: dict[str, Means] = {}
    for number, target in enumerate(config.targets):
        of = {name: [r for r in results if r["target"] == target and r["method"] == name] for name in methods}
        of = {name: sorted(found, key=lambda r: r["seed"] or 0) for name, found in of.items() if _whole(found)}
        if of:
            means[target] = _means(of, config.comparison.seeds, number, redrawn=target in redrawn)
            lines = [_line(name, found, means[target]) for name, found in of.items()]
            targets[target] = {
                "split": _split(of),
                "redrawn": target in redrawn,
                "lines": lines,
                "verdict": verdict(lines),
                "curves": {name: _curve(found) for name, found in of.items()},
            }
    overall = _overall(methods, list(means.values())) if len(means) > 1 else []
    return {
        "name": config.first.name,
        "budget": config.comparison.budget,
        "seeds": config.comparison.seeds,
        "methods": {name: all_methods()[name].what for name in methods},
        "left_out": missing,
        "failed": failed,
        "targets": targets,
        "overall": overall,
        "verdict": verdict(overall),
        "versions": versions(),
    }


def _whole(found: list[Result]) -> bool:
    return bool(found) and all(result.get("scores") for result in found)


def _split(of: dict[str, list[Result]]) -> str:
    return str(next(iter(of.values()))[0]["split"])


def _means(of: dict[str, list[Result]], seeds: Sequence[int], number: int, *, redrawn: bool) -> Means:
    split = _split(of)
    # A method without one of the seeds failed with it, so it cannot be paired.
    of = {name: found for name, found in of.items() if [r["seed"] for r in found] in ([None], sorted(seeds))}
    if not of:
        return {}
    tables = {name: [np.array(r["scores"]) for r in found] for name, found in of.items()}
    utilities = {name: [np.array([r[split]]) for r in found] for name, found in of.items()}
    # If the utility is not a mean over examples, whole utilities are resampled, over seeds only.
    pairs = [(scores, whole) for name in of for scores, whole in zip(tables[name], utilities[name], strict=True)]
    plain = all(np.isclose(scores.mean(), whole[0], atol=1e-9) for scores, whole in pairs)
    means = resampled_means(tables if plain else utilities, redrawn=redrawn, seed=number)
    return {name: (float(np.mean(utilities[name])), means[name]) for name in of}


def _line(name: str, found: list[Result], means: Means) -> Line:
    return _compared(means, name) | {
        "validation": _mean([result["validation"] for result in found]),
        "evaluations": float(np.mean([result["evaluations"] for result in found])),
        "seconds": float(np.mean([result["seconds"] for result in found])),
        "seeds": None if found[0]["seed"] is None else len(found),
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


def verdict(lines: Sequence[Line]) -> str:
    """One line: what the best method gains over what costs little."""
    known = {line["method"]: line for line in lines if line["utility"]}
    others = [line for name, line in known.items() if name not in (*TO_BEAT, *FOLLOWING)]
    if not others:
        return ""
    best = max(others, key=lambda line: float(line["utility"]["mean"]))
    gains = {name: best[f"over_{name}"] for name in TO_BEAT if name in known}
    beaten = [name for name, gain in gains.items() if gain["low"] > 0]
    level = [f"{name} ({Interval(**gain).signed})" for name, gain in gains.items() if name not in beaten]
    found = [f"beats {', '.join(beaten)}"] if beaten else []
    found += [f"does not beat {', '.join(level)}"] if level else []
    unknown = [name for name in TO_BEAT if name not in known]
    found += [f"was not compared with {', '.join(unknown)}"] if unknown else []
    return f"{best['method']} ({best['utility']['mean']:.3f}) {'; it '.join(found)}"


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
