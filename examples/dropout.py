"""What do dropout-K and dropout-N save, and what do they cost? Same number of generations, fewer evaluations.

Source: Model Swarms, section 5: up to 80 % faster, 6 % worse.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from evoswarm.loop.directory import read_lines
from evoswarm.report.drawing import BEST, INK
from evoswarm.report.statistics import Interval
from examples.common import EXPERTS, ask

RATES = ((0.0, 0.0), (0.2, 0.2), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.8, 0.8))
"""dropout-K (generations) and dropout-N (particles)."""


def cost(run_dir: Path) -> tuple[int, int, float]:
    """Evaluations, scored examples, and seconds of the generations after the first."""
    last = read_lines(run_dir / "generations.jsonl")[-1]
    timings = [line for line in read_lines(run_dir / "timings.jsonl") if "phase" not in line]
    return last["evaluations"], last["examples_scored"], sum(line["seconds"]["total"] for line in timings)


def main() -> None:
    """Run the experiment."""
    question = ask("dropout", __doc__)
    runs = {}
    limits: dict[str, Any] = {"max_evaluations": None, "max_generations": question.budget // EXPERTS - 1}
    for drop_k, drop_n in RATES:
        name = f"K{drop_k:g}-N{drop_n:g}"
        runs[f"K {drop_k:g}, N {drop_n:g}"] = question.runs(
            name, drop_generations=drop_k, drop_particles=drop_n, **limits
        )
    found = question.utilities(runs)
    costs = {name: np.mean([cost(d) for dirs in by.values() for d in dirs], axis=0) for name, by in runs.items()}
    whole = next(iter(costs.values()))
    lines = [
        {
            "dropout": name,
            "test utility": utility,
            "over none": gain,
            "evaluations": float(costs[name][0]),
            "examples": float(costs[name][1] / whole[1]),
            "seconds": float(costs[name][2] / whole[2]),
        }
        for name, (utility, gain) in found.items()
    ]
    points = {
        name.replace("K ", "").replace(", N ", " / "): (float(costs[name][1] / whole[1]), utility)
        for name, (utility, _) in found.items()
    }
    question.close(lines, partial(draw, points=points))


def draw(axes: Axes, *, points: dict[str, tuple[float, Interval]]) -> str:
    """Plot the utility over the fraction of examples scored."""
    for name, (share, utility) in points.items():
        axes.plot([share, share], [utility.low, utility.high], color=BEST, linewidth=1.2)
        axes.plot([share], [utility.mean], "o", color=BEST, markersize=5)
        axes.annotate(
            name, (share, utility.low), xytext=(0, -9), textcoords="offset points", ha="center", fontsize=7, color=INK
        )
    axes.set_xlim(0, 1.1)
    axes.margins(y=0.1)
    axes.set_xlabel("examples scored, relative to no dropout (labels: K / N)")
    axes.set_ylabel("test utility")
    return "Test utility against examples scored: " + ", ".join(f"{n} {s:.2f} {u}" for n, (s, u) in points.items())


if __name__ == "__main__":
    main()
