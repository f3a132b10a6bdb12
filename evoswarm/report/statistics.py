"""Means and 95 % intervals by paired bootstrap over seeds and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CHUNKS = 20
"""Draws of a chunk of resamples are in memory at the same time."""
Tables = Mapping[str, Sequence[np.ndarray]]
"""The scores [E] of each method by seed; a method without random numbers may have one row, which counts for all."""


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


def resampled_means(tables: Tables, *, redrawn: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Resampled means [RESAMPLES] of each method. All methods share the draws, so they are paired.

    Seeds are drawn with replacement. If all seeds have the same examples, examples are drawn independently of them. If
    every seed has its own (`redrawn`), each drawn seed draws examples of its own, and their number may differ. A row of
    one number is a whole utility that is not a mean over examples: then only seeds are drawn.
    """
    rng, count = np.random.default_rng(seed), max(map(len, tables.values()))
    seeds = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    draw = _own_examples if redrawn else _same_examples
    chunks = [draw(tables, part, rng) for part in np.array_split(seeds, CHUNKS)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in tables}


def _same_examples(tables: Tables, seeds: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    size = len(next(iter(tables.values()))[0])
    examples = rng.multinomial(size, np.full(size, 1 / size), len(seeds)) / size
    shares = seeds / seeds.sum(axis=1, keepdims=True)
    by_seed = {name: examples @ np.asarray(table).T for name, table in tables.items()}
    return {name: (found * shares if found.shape[1] > 1 else found).sum(axis=1) for name, found in by_seed.items()}


def _own_examples(tables: Tables, seeds: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A seed that is drawn twice draws twice as many examples."""
    count, means = seeds.shape[1], {name: np.zeros(len(seeds)) for name in tables}
    for number in range(count):
        size = len(next(iter(tables.values()))[number])
        examples = rng.multinomial(seeds[:, number] * size, np.full(size, 1 / size)) / (count * size)
        for name, table in tables.items():
            means[name] += examples @ table[number]
    return means


def interval(mean: float, means: np.ndarray) -> Interval:
    """The interval of a mean from its resampled values."""
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high))
