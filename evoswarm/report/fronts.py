"""Plots of several tasks: what was measured on them, the front over generations, and its hypervolume."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evoswarm.report.drawing import BEST, CALM, EXTRA, FAINT, INK, PAPER, Plot, legend, plain, render
from evoswarm.report.read import Run
from evoswarm.search.dominance import nondominated

MAX_PAIRS = 3
"""Pairs of tasks that are drawn."""
RASTER_ABOVE = 500
"""See `plots`."""
MARKS = {"base": ("base", CALM, "D"), "greedy_soup": ("greedy soup", EXTRA, "P"), "ensemble:0": ("winner", BEST, "*")}
"""Label, color and marker of finalists."""


def front_plots(run: Run) -> list[Plot]:
    """The plots of a run on several tasks; none if it has one task."""
    tasks = task_names(run)
    pairs = list(combinations(tasks, 2))[:MAX_PAIRS]
    alone = len(tasks) == 2
    plots = [
        render(f"front-{i}", partial(front, run=run, pair=pair, lines=alone), height=3.8)
        for i, pair in enumerate(pairs, 1)
    ]
    if any(record["front"] for record in run.generations):
        plots.append(render("hypervolume", partial(volume, run=run), height=2.6))
    return plots


def task_names(run: Run) -> list[str]:
    """The tasks that every row was measured on; empty if the utility is one task."""
    found = (tasks for record in run.generations for of in record["tasks"].values() for tasks in of.values())
    return list(next(found, {}))


def points_of(run: Run, pair: tuple[str, str], chosen: Callable[[str], bool] = lambda phase: True) -> list[np.ndarray]:
    """Per generation, the utilities [M, 2] of the successful rows of the chosen phases on two tasks."""
    return [
        np.reshape(
            [[t[name] for name in pair] for phase, of in r["tasks"].items() if chosen(phase) for t in of.values()],
            (-1, 2),
        )
        for r in run.generations
    ]


def front(axes: Axes, *, run: Run, pair: tuple[str, str], lines: bool) -> str:
    """Plot all rows on two tasks; with `lines`, the front after the first, a middle and the last generation."""
    found = points_of(run, pair)
    everything = np.concatenate(found)
    style: dict[str, Any] = {"color": FAINT, "marker": ".", "markersize": 4, "linestyle": "", "alpha": 0.5}
    axes.plot(*everything.T, **style, rasterized=len(everything) > RASTER_ABOVE, label="measured row")
    if lines:
        for generation, share in _shown(len(found)):
            steps = staircase(np.concatenate(found[: generation + 1]))
            color = matplotlib.colormaps["viridis"](0.85 - 0.65 * share)
            axes.plot(*steps.T, color=color, linewidth=1.6, label=f"front, generation {generation}")
    _references(axes, run, pair)
    axes.set(xlabel=f"{plain(pair[0])} (validation)", ylabel=f"{plain(pair[1])} (validation)")
    axes.margins(0.06)
    legend(axes, columns=2)
    best, count = everything.max(axis=0), int(nondominated(everything).sum())
    return (
        f"{len(everything)} rows on the tasks {plain(pair[0])} and {plain(pair[1])}; {count} are not dominated. "
        f"The highest values are {best[0]:.4g} and {best[1]:.4g}."
    )


def _shown(generations: int) -> list[tuple[int, float]]:
    """Generations whose front is drawn, with their share of the way."""
    last = generations - 1
    return [(g, g / max(last, 1)) for g in sorted({0, last // 2, last})]


def staircase(points: np.ndarray) -> np.ndarray:
    """The corners [S, 2] of the front of points [M, 2], from high to low values of the second task."""
    best = points[nondominated(points)]
    best = best[np.argsort(best[:, 0])]
    corners = [best[:1]]
    for before, after in zip(best[:-1], best[1:], strict=True):
        corners.append(np.array([[before[0], after[1]], after]))
    return np.concatenate(corners)


def _references(axes: Axes, run: Run, pair: tuple[str, str]) -> None:
    """Mark the experts, the base, the greedy soup and the winner."""
    experts = points_of(run, pair, lambda phase: phase == "experts")[0]
    axes.plot(*experts.T, color=INK, marker="s", markersize=4, linestyle="", label="expert")
    finals = (run.summary or {}).get("tasks", {})
    for who, (label, color, marker) in MARKS.items():
        if tasks := finals.get(who, {}).get("validation"):
            place, size = [[tasks[name]] for name in pair], 11 if marker == "*" else 6
            axes.plot(*place, color=color, marker=marker, markersize=size, markeredgecolor=PAPER, ls="", label=label)


def volume(axes: Axes, *, run: Run) -> str:
    """Plot the hypervolume of the front per generation."""
    known = [(r["generation"], r["front"]["hypervolume"], r["front"]["rows"]) for r in run.generations if r["front"]]
    steps, volumes, rows = zip(*known, strict=True)
    axes.plot(steps, volumes, color=BEST, linewidth=2.2, marker="o" if len(steps) < 12 else "", markersize=4.5)
    axes.set(xlabel="generation", ylabel="hypervolume (validation)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    first, last = f"{volumes[0]:.4g} ({rows[0]} rows)", f"{volumes[-1]:.4g} ({rows[-1]} rows)"
    return f"The hypervolume of the front goes from {first} to {last}."
