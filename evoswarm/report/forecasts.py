"""The plots of what a surrogate predicted: against what was measured, and the gain that it expected per batch."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from evoswarm.report.drawing import BEST, FAINT, INK, legend
from evoswarm.report.read import Run

WIDTH = 1.96
"""Standard deviations to each side of a 95 % interval."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """All rows that were predicted and then measured [M], with their batches, and the expected gain of each batch.

    `rises`: how much each batch raised the global best.
    """

    batches: np.ndarray
    expected: np.ndarray
    deviations: np.ndarray
    measured: np.ndarray
    gains: dict[int, float]
    rises: dict[int, float]

    @property
    def inside(self) -> int:
        """How many measured utilities are in their interval."""
        return int((np.abs(self.measured - self.expected) <= WIDTH * self.deviations).sum())

    @property
    def sentence(self) -> str:
        """The agreement in words."""
        bias = float((self.measured - self.expected).mean())
        side = "above" if bias > 0 else "below"
        return (
            f"{self.inside} of {len(self.measured)} measured utilities are inside the 95 % interval of their "
            f"prediction; on average they are {abs(bias):.3g} {side} it."
        )


def predicted_of(run: Run) -> Predicted | None:
    """The forecasts of a run; None if it has none, or none of a row that was measured."""
    found, gains = [], {}
    for record in run.generations:
        if (forecast := record["forecast"]) is None:
            continue
        batch = record["generation"]
        gains[batch] = forecast["gain"]
        rows = zip(*(forecast[key] for key in ("expected", "deviations", "measured")), strict=True)
        found += [(batch, *row) for row in rows if row[-1] is not None]
    if not found:
        return None
    bests = {record["generation"]: record["best"] for record in run.generations}
    rises = {batch: bests[batch] - bests[batch - 1] for batch in gains if batch - 1 in bests}
    batches, expected, deviations, measured = np.array(found, dtype=float).T
    return Predicted(batches, expected, deviations, measured, gains, rises)


def calibration(axes: Axes, *, predicted: Predicted) -> str:
    """Plot the predicted utility of each row, with its interval, against the measured utility."""
    last = max(predicted.batches.max(), 2)
    # Only the middle of the scale, because its ends are invisible on white or black.
    colors = matplotlib.colormaps["viridis"](0.2 + 0.65 * (predicted.batches - 1) / (last - 1))
    margin = WIDTH * predicted.deviations
    axes.hlines(predicted.measured, predicted.expected - margin, predicted.expected + margin, colors=colors, alpha=0.45)
    axes.scatter(predicted.expected, predicted.measured, c=colors, s=22, linewidths=0, zorder=3)
    both = np.concatenate([predicted.expected, predicted.measured])
    ends = [both.min(), both.max()]
    axes.plot(ends, ends, color=FAINT, linestyle="--", linewidth=1, label="as predicted")
    for share, label in ((0.2, "first batch"), (0.85, "last batch")):
        color = matplotlib.colormaps["viridis"](share)
        axes.plot([], [], color=color, marker="o", markersize=4, linestyle="", label=label)
    axes.set(xlabel="predicted utility, 95 % interval", ylabel="measured utility (validation)")
    axes.margins(0.06)
    legend(axes, columns=3)
    return predicted.sentence


def gains(axes: Axes, *, predicted: Predicted) -> str:
    """Plot the expected and the measured gain of each batch."""
    batches = sorted(predicted.gains)
    expected = [predicted.gains[batch] for batch in batches]
    rises = [predicted.rises.get(batch, np.nan) for batch in batches]
    axes.plot(batches, expected, color=BEST, marker="o", markersize=5, linewidth=2, label="expected of the first row")
    axes.plot(batches, rises, color=INK, marker="x", linestyle=":", linewidth=1.2, label="rise of the global best")
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.set(xlabel="batch", ylabel="gain in utility")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(axes, columns=2)
    return (
        "Expected gain per batch: " + ", ".join(f"{b}: {g:+.4f}" for b, g in zip(batches, expected, strict=True)) + "."
    )
