"""What a port is worth: old base, old winner, new base and ported winner, with flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evoswarm.report.analysis import flips, solved
from evoswarm.utility import Split


@dataclass(frozen=True, eq=False)
class Scored:
    """One model on one split: its utility, scores [B] (NaN: failed), and predictions by example."""

    utility: float | None
    scores: np.ndarray
    predictions: Sequence[str | None]


Measured = Mapping[Split, Scored]
"""One model by split."""


@dataclass(frozen=True)
class Change:
    """From one model to another on the same examples.

    Attributes:
        lost: examples that were right and are wrong (negative flips).
        gained: examples that were wrong and are right.
        negative_flip_rate: `lost` as a share of all examples.
        inconsistency: share of all examples with a negative flip, or that were wrong before and are wrong in another
            way. Source: MUSCLE (arXiv 2407.09435).
    """

    lost: int
    gained: int
    negative_flip_rate: float
    inconsistency: float


def change(before: Scored, after: Scored) -> Change:
    """Compare two models on the same examples."""
    found, total = flips(before.scores, after.scores), len(before.scores)
    pairs = zip(before.predictions, after.predictions, strict=True)
    other = np.array([one != two for one, two in pairs], dtype=bool)
    wrong = ~solved(before.scores) & ~solved(after.scores)
    lost = len(found.lost)
    return Change(lost, len(found.gained), lost / total, (lost + int((wrong & other).sum())) / total)


def surviving(lines: Mapping[str, Measured], split: Split, *, winner: str = "ported winner") -> float | None:
    """The share of the gain over the base that survives the port; None if there was none."""
    values = [lines[name][split].utility for name in ("old base", "old winner", "new base", winner)]
    if any(value is None for value in values):
        return None
    before, after, new, ported = (float(value) for value in values if value is not None)
    return (ported - new) / (after - before) if after > before else None


def table(lines: Mapping[str, Measured], splits: Sequence[Split]) -> list[dict[str, Any]]:
    """One record per model: utilities, and the change from the old winner on the last split."""
    last = splits[-1]
    return [
        {
            "model": name,
            **{split: line[split].utility for split in splits},
            "from_old_winner": None
            if name.startswith("old") or not len(line[last].scores)
            else vars(change(lines["old winner"][last], line[last])),
        }
        for name, line in lines.items()
    ]
