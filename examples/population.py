"""Is a larger population better? 10 to 40 particles, compared at equal generations and at equal evaluations.

Source: GENOME, section 4 (populations up to 40).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from evoswarm.loop.directory import read_lines
from evoswarm.report.drawing import BEST, CALM, EXTRA, WORST, legend
from examples.common import EXPERTS, ask

SIZES = (10, 20, 30, 40)
COLORS = (BEST, WORST, CALM, EXTRA)
Curve = list[tuple[int, float]]
"""Number of evaluations, and the best validation utility so far."""


def curve(run_dir: Path) -> Curve:
    """The best utility of a run over its evaluations."""
    return [(line["evaluations"], line["best"]) for line in read_lines(run_dir / "generations.jsonl")]


def best_by(curves: list[Curve], evaluations: int) -> float | None:
    """The mean best utility after `evaluations` evaluations; None if a run had not measured any."""
    known = [[best for at, best in points if at <= evaluations] for points in curves]
    return float(np.mean([max(values) for values in known])) if all(known) else None


def main() -> None:
    """Run the experiment."""
    question = ask("population", __doc__)
    limits: dict[str, Any] = {"max_evaluations": None, "max_generations": question.budget // EXPERTS - 1}
    runs = {str(size): question.runs(str(size), population=size, **limits) for size in SIZES}
    found = question.utilities(runs)
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
    """Plot the best validation utility over evaluations."""
    for color, (name, found) in zip(COLORS, curves.items(), strict=True):
        grid = sorted({at for points in found for at, _ in points})
        values = [(at, best_by(found, at)) for at in grid]
        axes.step(
            *zip(*[(at, best) for at, best in values if best is not None], strict=True),
            where="post",
            color=color,
            label=name,
        )
    axes.set_xlabel("evaluations")
    axes.set_ylabel("best utility on validation")
    legend(axes, columns=4)
    return f"Best validation utility against evaluations for populations of {', '.join(curves)}."


if __name__ == "__main__":
    main()
