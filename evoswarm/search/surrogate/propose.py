"""Where the surrogate expects the most: on the simplex, or in a box around the best measured row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evoswarm.search.surrogate.model import Surrogate

STEPS = 50
FLOOR = 1e-3
"""Least coefficient of a start on the simplex."""
DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-12
"""Adam's constants (arXiv 1412.6980)."""

Gradient = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Simplex:
    """Rows with coefficients of 0 or more that sum to 1."""

    center: np.ndarray

    def starts(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows [count, J]: the center, then uniform draws."""
        inside = np.maximum(self.center, FLOOR)
        draws = rng.dirichlet(np.ones(len(inside)), size=count - 1)
        return np.vstack([inside / inside.sum(), draws])

    def climb(self, rows: np.ndarray, gradient: Gradient) -> np.ndarray:
        """Local optima [m, J] from starts [m, J], with coefficients as a softmax."""

        def slope(z: np.ndarray) -> np.ndarray:
            c = _softmax(z)
            g = gradient(c)
            return c * (g - (c * g).sum(1, keepdims=True))

        return _softmax(ascend(np.log(np.maximum(rows, FLOOR)), slope, step=0.3))


@dataclass(frozen=True, eq=False)
class Box:
    """Rows within `radius` of the center in every coefficient, inside [low, high]."""

    center: np.ndarray
    radius: float
    low: float
    high: float

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds [J]. The center is always inside."""
        low, high = np.minimum(self.low, self.center), np.maximum(self.high, self.center)
        return np.maximum(self.center - self.radius, low), np.minimum(self.center + self.radius, high)

    def starts(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Rows [count, J]: the center, then uniform draws."""
        low, high = self.edges
        return np.vstack([self.center, rng.uniform(low, high, size=(count - 1, len(low)))])

    def climb(self, rows: np.ndarray, gradient: Gradient) -> np.ndarray:
        """Local optima [m, J] from starts [m, J]."""
        low, high = self.edges
        return ascend(rows, gradient, step=self.radius / 5, keep=lambda c: np.clip(c, low, high))


Region = Simplex | Box


def optima(surrogate: Surrogate, region: Region, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The rows [k, J] of the highest expected utility that are reached from the starts [k, s, J].

    Each of the k optima is under its own example weights [k, E].
    """
    k, s, columns = starts.shape
    each = np.repeat(weights, s, axis=0)
    ends = region.climb(starts.reshape(k * s, columns), lambda rows: surrogate.slope(rows, each))
    chosen = surrogate.utility(ends, each).reshape(k, s).argmax(1)
    return np.asarray(ends.reshape(k, s, columns)[np.arange(k), chosen])


def ascend(
    start: np.ndarray, gradient: Gradient, *, step: float, keep: Callable[[np.ndarray], np.ndarray] = lambda x: x
) -> np.ndarray:
    """Adam from every start [m, J] at once, with a step that shrinks to zero; `keep` projects into the region."""
    x, mean, square = keep(start), np.zeros_like(start), np.zeros_like(start)
    for t in range(STEPS):
        g = gradient(x)
        mean, square = DECAY * mean + (1 - DECAY) * g, SQUARE_DECAY * square + (1 - SQUARE_DECAY) * g**2
        ahead = mean / (1 - DECAY ** (t + 1)) / (np.sqrt(square / (1 - SQUARE_DECAY ** (t + 1))) + TINY)
        x = keep(x + step * (1 - t / STEPS) * ahead)
    return x


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))
