"""Does a larger population pay? 10 to 40 particles, at equal generations and at equal evaluations.

Source: GENOME, section 4 (populations up to 40).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from evoswarm.loop.directory import read_lines
from evoswarm.report.drawing import BEST, CALM, EXTRA, WORST, legend
from examples.common import EXPERTS, ask, winners

SIZES = (10, 20, 30, 40)
COLOURS = (BEST, WORST, CALM, EXTRA)
Curve = list[tuple[int, float]]
"""Evaluations, and the best validation utility by then."""


def curve(run_dir: Path) -> Curve:
    """How the best utility of a run rose."""
    return [(line["evaluations"], line["best"]) for line in read_lines(run_dir / "generations.jsonl")]


def best_by(curves: list[Curve], evaluations: int) -> float | None:
    """The mean of the best utilities that were known after so many evaluations; None where a run had none yet."""
    known = [[best for at, best in points if at <= evaluations] for points in curves]
    return float(np.mean([max(values) for values in known])) if all(known) else None


def main() -> None:
    """Ask it."""
    question = ask("population", __doc__)
    runs: dict[str, dict[str, list[Path]]] = {}
    for size in SIZES:
        search = {"population": size, "max_evaluations": None, "max_generations": question.budget // EXPERTS - 1}
        runs[f"{size}"] = {
            target: [
                question.run(f"{target}-{size}", question.config(target), seed=seed, **search)
                for seed in range(question.seeds)
            ]
            for target in question.targets
        }
    found = question.intervals({name: {t: winners(dirs) for t, dirs in by.items()} for name, by in runs.items()})
    curves = {name: [curve(d) for dirs in by.values() for d in dirs] for name, by in runs.items()}
    lines = [
        {
            "population": name,
            "test utility": utility,
            f"over {SIZES[0]}": gain,
            "evaluations": float(np.mean([points[-1][0] for points in curves[name]])),
            "validation": best_by(curves[name], 10**9),
            f"validation by {question.budget}": best_by(curves[name], question.budget),
        }
        for name, (utility, gain) in found.items()
    ]
    question.close(lines, partial(draw, curves=curves))


def draw(axes: Axes, *, curves: dict[str, list[Curve]]) -> str:
    """Best validation utility against evaluations."""
    for colour, (name, found) in zip(COLOURS, curves.items(), strict=True):
        grid = sorted({at for points in found for at, _ in points})
        values = [(at, best_by(found, at)) for at in grid]
        axes.step(
            *zip(*[(at, best) for at, best in values if best is not None], strict=True),
            where="post",
            color=colour,
            label=name,
        )
    axes.set_xlabel("evaluations")
    axes.set_ylabel("best utility on validation")
    legend(axes, columns=4)
    return f"Best validation utility against evaluations for populations of {', '.join(curves)}."


if __name__ == "__main__":
    main()
