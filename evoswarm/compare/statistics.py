"""Means and 95 % intervals by paired bootstrap over seeds and examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % percentile interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def signed(self) -> str:
        """With signs, for differences."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Bootstrap:
    """Resampled means of tables [S, E] (seeds x examples). All tables of a target share the draws, so they are paired.

    Seeds and examples are drawn independently, with replacement. A table with one row belongs to a method without
    random numbers: the row counts for every seed. A table with one column has whole utilities that are not means over
    examples: only seeds are drawn.
    """

    def __init__(self, *, seeds: int, examples: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
        self._examples = rng.multinomial(examples, np.full(examples, 1 / examples), RESAMPLES) / examples

    def means(self, table: np.ndarray) -> np.ndarray:
        """Resampled means [RESAMPLES] of one table."""
        by_seed = self._examples @ table.T if table.shape[1] > 1 else np.tile(table.T, (RESAMPLES, 1))
        return by_seed[:, 0] if table.shape[0] == 1 else (by_seed * self._seeds).sum(axis=1)


def interval(mean: float, means: np.ndarray) -> Interval:
    """The interval of a mean from its resampled values."""
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high))
