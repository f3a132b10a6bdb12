"""The kernel of the Gaussian process: constant, linear and squared-exponential parts over shared length scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_NOISE = 0.03
"""Standard deviation that is added to the fitted noise, so that the kernel matrix is never singular."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """k(x, x') = a0^2 + a1^2 sum_j x_j x'_j / l_j^2 + exp(-1/2 sum_j (x_j - x'_j)^2 / l_j^2).

    Attributes:
        lengths: l [J], in units of a coefficient.
        constant: a0.
        linear: a1.
        noise: d; an observation has the variance (d + 0.03)^2 in units of the kernel.
    """

    lengths: np.ndarray
    constant: float
    linear: float
    noise: float

    @classmethod
    def of(cls, parameters: np.ndarray) -> Kernel:
        """The kernel of log parameters [J + 3]: lengths, a0, a1, d."""
        values = np.exp(parameters)
        return cls(values[:-3], float(values[-3]), float(values[-2]), float(values[-1]))

    @property
    def variance(self) -> float:
        """Variance of the noise."""
        return (self.noise + LEAST_NOISE) ** 2

    def smooth(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The squared-exponential part [n, m] of rows [n, J] and [m, J]."""
        a, b = x / self.lengths, z / self.lengths
        squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
        return np.asarray(np.exp(-0.5 * np.maximum(squares, 0.0)))

    def matrix(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """k of all pairs [n, m]."""
        dot = (x / self.lengths**2) @ z.T
        return np.asarray(self.constant**2 + self.linear**2 * dot + self.smooth(x, z))

    def diagonal(self, x: np.ndarray) -> np.ndarray:
        """k(x, x) [n]."""
        return np.asarray(self.constant**2 + self.linear**2 * ((x / self.lengths) ** 2).sum(1) + 1.0)

    def slope(self, rows: np.ndarray, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """sum_i v_i d k(c, x_i) / d c for each of the rows c [m, J], with v [m, n]: [m, J]."""
        smooth = v * self.smooth(rows, x)
        pull = smooth.sum(1)[:, None] * rows - smooth @ x
        return np.asarray((self.linear**2 * (v @ x) - pull) / self.lengths**2)

    def diagonal_slope(self, rows: np.ndarray) -> np.ndarray:
        """d k(c, c) / d c for each of the rows c [m, J]."""
        return np.asarray(2 * self.linear**2 * rows / self.lengths**2)
