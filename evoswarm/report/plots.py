"""The plots of a report. Each function draws one into given axes and returns its alternative text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evoswarm.report.analysis import Flips, coefficients, evenly, principal_plane, rank
from evoswarm.report.drawing import BEST, CALM, EXTRA, FAINT, INK, PAPER, WORST, Plot, legend, plain, render
from evoswarm.report.findings import emergence_of, finalist_flips, origin_of, track
from evoswarm.report.forecasts import calibration, gains, predicted_of
from evoswarm.report.fronts import front_plots
from evoswarm.report.read import Measurement, Run

MAX_LINES = 60
"""The maximum number of particles drawn; more are sampled. The winner is always drawn."""
MAX_POINTS = 40
"""The maximum number of evaluations drawn per generation if particles do not persist; more are sampled."""
MAX_BARS = 30
RASTER_ABOVE = 500
"""Clouds with more points than this are embedded as images, because these are smaller than SVG."""


def all_plots(run: Run) -> dict[str, Plot]:
    """All plots for which the run has data, by name."""
    if not run.generations:
        return {}
    winner, found = run.winner, emergence_of(run)
    plots = [render("utility", partial(utility, run=run), height=3.3)]
    if winner is not None and len(run.experts) > 1:
        plots.append(render("trajectories", partial(trajectories, run=run), height=3.8))
        if winner.experts:
            plots.append(render("recipe", partial(recipe, winner=winner), height=_bars_height(len(winner.experts))))
    plots += front_plots(run)
    if predicted := predicted_of(run):
        plots.append(render("calibration", partial(calibration, predicted=predicted), height=3.8))
        plots.append(render("gains", partial(gains, predicted=predicted), height=3.0))
    if found is not None and found.unsolved:
        plots.append(render("emergence", partial(emergence, run=run), height=3.3))
    if winner is not None and (run.start or run.initial):
        plots.append(render("start", partial(start, run=run, winner=winner), height=3.0))
    if compared := finalist_flips(run):
        plots.append(render("flips", partial(negative_flips, compared=compared), height=_bars_height(len(compared))))
    return {plot.name: plot for plot in plots}


def drawn_particles(run: Run) -> list[int]:
    """The particles that are drawn."""
    winner = run.winner
    return evenly(len(run.start or ()), MAX_LINES, keep=winner.particle if winner else None)


def utility(axes: Axes, *, run: Run) -> str:
    """Plot the utility per generation: particles, median, global best, global worst."""
    steps = [record["generation"] for record in run.generations]
    if run.persistent and run.start:
        for particle in drawn_particles(run):
            values = [np.nan if m is None or m.utility is None else m.utility for m in track(run, particle)]
            axes.plot(steps, values, color=FAINT, linewidth=0.8, alpha=0.55, marker=".", markersize=2.5)
        axes.plot([], [], color=FAINT, linewidth=0.8, marker=".", markersize=2.5, label="each particle")
    else:
        points = [(m.generation, m.utility) for line in run.measured for m in _sample(line) if m.utility is not None]
        style: dict[str, Any] = {"color": FAINT, "marker": "o", "markersize": 3, "linestyle": "", "alpha": 0.5}
        axes.plot(*zip(*points, strict=True), **style, rasterized=len(points) > RASTER_ABOVE)
        axes.plot([], [], **style, label="each evaluation")
    medians = [np.nan if record["median"] is None else record["median"] for record in run.generations]
    axes.plot(steps, medians, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="population median")
    bests, worsts = ([record[key] for record in run.generations] for key in ("best", "worst"))
    marker = "o" if len(steps) < 12 else ""
    axes.plot(steps, bests, color=BEST, linewidth=2.4, marker=marker, markersize=4.5, label="global best")
    axes.plot(
        steps, worsts, color=WORST, linewidth=1.6, linestyle=":", marker=marker, markersize=3, label="global worst"
    )
    axes.set(xlabel="generation", ylabel="utility (validation)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(axes, columns=2)
    return (
        f"Utility on validation over generations {steps[0]} to {steps[-1]}: the global best goes from {bests[0]:.4g} "
        f"to {bests[-1]:.4g}, the global worst ever measured from {worsts[0]:.4g} to {worsts[-1]:.4g}."
    )


def trajectories(axes: Axes, *, run: Run) -> str:
    """Plot paths in the plane of the first two principal components of the coefficients."""
    everything = [m.experts for line in run.measured for m in line]
    plane = principal_plane(coefficients(everything, run.experts))

    def points(found: list[Measurement]) -> np.ndarray:
        return plane.project(coefficients([m.experts for m in found], run.experts))

    if run.persistent and run.start:
        for particle in drawn_particles(run):
            path = points([m for m in track(run, particle) if m is not None])
            axes.plot(*path.T, color=FAINT, linewidth=0.8, alpha=0.5)
            axes.plot(*path[-1:].T, color=FAINT, marker="o", markersize=3.5, linestyle="")
        axes.plot([], [], color=FAINT, linewidth=0.8, marker="o", markersize=3.5, label="particle, to its last place")
    else:
        _by_generation(axes, run, points)
    best = points([m for m in run.bests if m is not None])
    axes.plot(*best.T, color=BEST, linewidth=1.8, marker=".", markersize=5, label="global best")
    experts = plane.project(np.eye(len(run.experts)))
    axes.plot(*experts.T, color=EXTRA, marker="s", markersize=6, linestyle="", markeredgecolor=PAPER, label="expert")
    for name, place in _labels(run, experts):
        axes.annotate(plain(name, 14), place, xytext=(4, 5), textcoords="offset points", fontsize=8.5)
    axes.plot(*best[-1:].T, color=BEST, marker="*", markersize=15, linestyle="", markeredgecolor=PAPER, label="winner")
    axes.set(xlabel=f"first component ({plane.share[0]:.0%})", ylabel=f"second component ({plane.share[1]:.0%})")
    axes.margins(0.1)
    legend(axes, columns=2)
    return (
        f"Map of all evaluated recipes in their principal plane, which holds {plane.share.sum():.0%} of their "
        f"variance: {len(run.experts)} experts, the paths of the search, and the winner."
    )


def recipe(axes: Axes, *, winner: Measurement) -> str:
    """Plot the winner's coefficients as bars."""
    terms = sorted(winner.experts.items(), key=lambda item: -abs(item[1]))[:MAX_BARS]
    values = [value for _, value in terms]
    colors = [BEST if value > 0 else WORST for value in values]
    axes.barh(range(len(terms)), values, color=colors, height=0.66)
    low, high = min(0.0, *values), max(0.0, *values)
    span = high - low or 1.0
    for i, value in enumerate(values):
        side = "left" if value > 0 else "right"
        axes.text(value + np.copysign(0.015 * span, value), i, f"{value:+.2f}", va="center", ha=side, fontsize=9)
    axes.set_yticks(range(len(terms)), [plain(name) for name, _ in terms])
    axes.invert_yaxis()
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.grid(False, axis="y")
    room = 0.32 * span
    axes.set_xlim(low - (room if low < 0 else 0), high + (room if high > 0 else 0))
    axes.set_xlabel("coefficient in the winner")
    return "The winner's coefficients: " + ", ".join(f"{plain(name)} {value:+.2f}" for name, value in terms) + "."


def emergence(axes: Axes, *, run: Run) -> str:
    """Plot how many examples that no initial expert solved are solved per generation."""
    found = emergence_of(run)
    assert found is not None
    steps = [record["generation"] for record in run.generations]
    marker = "o" if len(steps) < 12 else ""
    lines = [
        (found.ever, CALM, ":", "by any so far"),
        (found.present, EXTRA, "--", "by any in this generation"),
        (found.best, BEST, "-", "by the global best"),
    ]
    for values, color, style, label in lines:
        shown = [np.nan if value is None else value for value in values]
        axes.plot(steps, shown, color=color, linestyle=style, linewidth=2, marker=marker, markersize=4, label=label)
    axes.set(xlabel="generation", ylabel=f"solved of {found.unsolved} examples")
    axes.set_ylim(bottom=0, top=max(1, *found.ever) * 1.08)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(axes, columns=2)
    return (
        f"Of {found.unsolved} examples that no initial expert solved, the global best solves {found.best[-1]} after "
        f"generation {steps[-1]}, and {found.ever[-1]} were solved by at least one particle at some time."
    )


def start(axes: Axes, *, run: Run, winner: Measurement) -> str:
    """Plot the origin of the winner: the first population or the initial experts, from best to worst."""
    origin = origin_of(run, winner)
    values = [float("nan") if u is None else u for u in origin.utilities]
    order = sorted(range(len(values)), key=lambda i: (rank(origin.utilities, i).place, i not in origin.marked, i))
    shown = [order[i] for i in evenly(len(order), 2 * MAX_LINES)]
    shown = [i for i in order if i in set(shown) | set(origin.marked)]
    colors = [BEST if i in origin.marked else FAINT for i in shown]
    places, few = [order.index(i) + 1 for i in shown], len(shown) <= 40
    axes.vlines(places, 0, [values[i] for i in shown], colors=colors, linewidth=1.5 if few else 0.5, alpha=0.8)
    axes.scatter(places, [values[i] for i in shown], c=colors, s=26 if few else 9, zorder=3)
    if winner.utility is not None:
        axes.axhline(winner.utility, color=BEST, linestyle="--", linewidth=1.2)
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate("winner in the end", (1, winner.utility), xytext=(0, 3), ha="right", fontsize=9, **place)
        values.append(winner.utility)
    low, high = np.nanmin(values), np.nanmax(values)
    axes.set_ylim(low - 0.12 * (high - low or 1), high + 0.14 * (high - low or 1))
    axes.set(xlabel=origin.label, ylabel="utility (validation)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(False, axis="x")
    return origin.sentence


def negative_flips(axes: Axes, *, compared: list[tuple[str, Flips]]) -> str:
    """Plot the examples lost and gained compared with the best initial expert, per finalist."""
    for i, (_, flips) in enumerate(compared):
        lost, gained = len(flips.lost), len(flips.gained)
        axes.barh(i, -lost, color=WORST, height=0.66, label=None if i else "lost (negative flips)")
        axes.barh(i, gained, color=BEST, height=0.66, label=None if i else "gained")
        axes.annotate(
            f"{lost}", (-lost, i), xytext=(-3, 0), textcoords="offset points", va="center", ha="right", fontsize=9
        )
        axes.annotate(f"{gained}", (gained, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(compared)), [name for name, _ in compared])
    axes.invert_yaxis()
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.grid(False, axis="y")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlabel("examples against the best initial expert")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderpad=0)
    return ". ".join(f"{name}: {len(f.lost)} lost, {len(f.gained)} gained" for name, f in compared) + "."


def _sample(line: tuple[Measurement, ...]) -> list[Measurement]:
    return [line[i] for i in evenly(len(line), MAX_POINTS)]


def _by_generation(axes: Axes, run: Run, points: Callable[[list[Measurement]], np.ndarray]) -> None:
    """Plot a cloud of evaluations, colored by generation."""
    chosen = [m for line in run.measured for m in _sample(line)]
    last = max(run.generations[-1]["generation"], 1)
    # Only the middle of the scale, because its ends are invisible on white or black.
    colors = matplotlib.colormaps["viridis"]([0.2 + 0.65 * m.generation / last for m in chosen])
    x, y = points(chosen).T
    axes.scatter(x, y, c=colors, s=11, alpha=0.7, linewidths=0, rasterized=len(chosen) > RASTER_ABOVE)
    for share, label in ((0.2, "evaluation, early"), (0.85, "late")):
        axes.plot(
            [], [], color=matplotlib.colormaps["viridis"](share), marker="o", markersize=4, linestyle="", label=label
        )


def _labels(run: Run, places: np.ndarray) -> list[tuple[str, tuple[float, float]]]:
    """Labels for all experts, or for the six with the largest coefficients if there are many."""
    winner = run.winner
    weights = winner.experts if winner else {}
    order = sorted(range(len(run.experts)), key=lambda j: -abs(weights.get(run.experts[j], 0.0)))
    chosen = order if len(order) <= 12 else order[:6]
    return [(run.experts[j], (float(places[j, 0]), float(places[j, 1]))) for j in sorted(chosen)]


def _bars_height(bars: int) -> float:
    return 1.0 + 0.27 * min(max(bars, 2), MAX_BARS)
