"""The computations of a report: pure functions of utilities, scores and coefficient rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def solved(scores: np.ndarray) -> np.ndarray:
    """Mask [B] of the examples with a score of at least 1; examples without a score (NaN) are not solved."""
    return np.asarray(scores) >= 1


@dataclass(frozen=True)
class Emergence:
    """Per generation: how many of the examples that no initial expert solved are now solved.

    Attributes:
        total: number of examples.
        unsolved: number of examples that no initial expert solved.
        best: solved by the global best of each generation; None if its scores are not recorded.
        present: solved by at least one evaluation of each generation.
        ever: solved by at least one evaluation up to each generation.
    """

    total: int
    unsolved: int
    best: tuple[int | None, ...]
    present: tuple[int, ...]
    ever: tuple[int, ...]


def emergence(
    experts: Sequence[np.ndarray],
    generations: Sequence[Sequence[np.ndarray]],
    bests: Sequence[np.ndarray | None],
) -> Emergence | None:
    """C-emergence: skills that no initial expert had; None if nothing is recorded or no score reaches 1.

    All are scores [B]: of each initial expert (empty: nothing was scored), of each evaluation of each generation, and
    of the global best as of each generation.
    Source: Model Swarms (arXiv 2410.11163), analysis of correctness emergence.
    """
    initial = [solved(scores) for scores in experts if len(scores)]
    later = [[solved(scores) for scores in scored if len(scores)] for scored in generations]
    if not initial or not any(mask.any() for masks in [initial, *later] for mask in masks):
        return None
    hard = ~np.logical_or.reduce(initial)
    present, ever, so_far = [], [], np.zeros_like(hard)
    for masks in later:
        now = np.logical_or.reduce([np.zeros_like(hard), *masks]) & hard
        so_far = so_far | now
        present.append(int(now.sum()))
        ever.append(int(so_far.sum()))
    best = [None if scores is None or not len(scores) else int((solved(scores) & hard).sum()) for scores in bests]
    return Emergence(len(hard), int(hard.sum()), tuple(best), tuple(present), tuple(ever))


def graded(scores: Sequence[np.ndarray]) -> bool:
    """Whether any score is neither 0 nor 1."""
    return any(bool((~np.isin(line, (0, 1)) & ~np.isnan(line)).any()) for line in scores)


@dataclass(frozen=True)
class Flips:
    """Examples grouped by whether they were solved before and after. `lost` are the negative flips."""

    lost: tuple[int, ...]
    gained: tuple[int, ...]
    both: int
    neither: int

    @property
    def total(self) -> int:
        """Number of examples."""
        return len(self.lost) + len(self.gained) + self.both + self.neither


def flips(before: np.ndarray, after: np.ndarray) -> Flips:
    """Compare two evaluations of the same examples, scores [B] each."""
    was, now = solved(before), solved(after)
    lost, gained = (tuple(np.flatnonzero(mask).tolist()) for mask in (was & ~now, ~was & now))
    return Flips(lost, gained, int((was & now).sum()), int((~was & ~now).sum()))


def sign_test(lost: int, gained: int) -> float:
    """The p-value of the flips if both sides are equally good (two-sided exact McNemar test)."""
    from scipy.stats import binomtest  # takes a second to import

    return float(binomtest(lost, lost + gained).pvalue)


@dataclass(frozen=True)
class Rank:
    """A rank among `of`; 1 is the best. `shared` counts the others with the same utility."""

    place: int
    of: int
    shared: int


def rank(utilities: Sequence[float | None], index: int) -> Rank:
    """The rank of one utility; failed evaluations (None) are last."""
    values = [-math.inf if u is None else u for u in utilities]
    mine = values[index]
    return Rank(1 + sum(u > mine for u in values), len(values), sum(u == mine for u in values) - 1)


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane of the first two principal components: center [J], axes [2, J], share [2] of the variance."""

    center: np.ndarray
    axes: np.ndarray
    share: np.ndarray

    def project(self, rows: np.ndarray) -> np.ndarray:
        """Rows [M, J] as points [M, 2]."""
        points: np.ndarray = (rows - self.center) @ self.axes.T
        return points


def principal_plane(rows: np.ndarray) -> Plane:
    """The principal plane of rows [M, J], M >= 1, J >= 2. The largest loading of each axis is positive."""
    center = rows.mean(axis=0)
    _, singular, axes = np.linalg.svd((rows - center).T @ (rows - center))
    axes = axes[:2]
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    total = singular.sum()
    share = singular[:2] / total if total > 0 else np.zeros(2)
    return Plane(center, axes * signs[:, None], share)


def coefficients(rows: Sequence[dict[str, float]], experts: Sequence[str]) -> np.ndarray:
    """Rows given by expert name as a matrix [M, J], in the order of `experts`."""
    column = {name: j for j, name in enumerate(experts)}
    matrix = np.zeros((len(rows), len(experts)))
    for i, row in enumerate(rows):
        for name, value in row.items():
            matrix[i, column[name]] = value
    return matrix


def evenly(count: int, limit: int, *, keep: int | None = None) -> list[int]:
    """At most `limit` (plus `keep`) indices below `count`, evenly spaced."""
    chosen = set(range(count)) if count <= limit else {i * count // limit for i in range(limit)}
    return sorted(chosen | ({keep} if keep is not None and keep < count else set()))
