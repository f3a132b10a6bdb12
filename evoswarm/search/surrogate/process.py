"""One Gaussian process per example, all with the same kernel: one Cholesky factor and matrix products."""

from __future__ import annotations

import numpy as np
import scipy

from evoswarm.search.surrogate.fit import fit
from evoswarm.search.surrogate.kernel import Kernel


class Process:
    """The posterior of functions h_e(c), e = 1..E, given their noisy values at n rows."""

    def __init__(self, rows: np.ndarray, values: np.ndarray, kernel: Kernel | None = None) -> None:
        """
        Args:
            rows: [n, J].
            values: [n, E].
            kernel: None: fitted.
        """
        self.rows, self.mean = rows, values.mean(0)
        self.spread = float((values - self.mean).std()) or 1.0
        y = (values - self.mean) / self.spread
        self.kernel = fit(rows, y) if kernel is None else kernel
        k = self.kernel.matrix(rows, rows) + self.kernel.variance * np.eye(len(rows))
        self._factor = scipy.linalg.cho_factor(k, lower=True)
        self._y, self._solved = y, scipy.linalg.cho_solve(self._factor, y)
        self.scale = float((y * self._solved).sum()) / y.size
        """Variance of the process in units of the kernel, by maximum likelihood."""

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means [m, E] and variances [m], which all examples share."""
        k = self.kernel.matrix(rows, self.rows)
        left = self.kernel.diagonal(rows) - (k * scipy.linalg.cho_solve(self._factor, k.T).T).sum(1)
        return self.mean + self.spread * (k @ self._solved), self.spread**2 * self.scale * np.maximum(left, 0.0)

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means [n, E] and variances [n] at each measured row, given all others, with the same kernel.

        Source: Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, equation 5.12.
        """
        precision = np.diag(scipy.linalg.cho_solve(self._factor, np.eye(len(self.rows))))
        means = self.mean + self.spread * (self._y - self._solved / precision[:, None])
        return means, self.spread**2 * self.scale * np.maximum(1 / precision - self.kernel.variance, 0.0)

    def slopes(self, rows: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients [m, J] at rows [m, J] of sum_e direction_e mean_e, with direction [m, E], and of the variance."""
        k = self.kernel.matrix(rows, self.rows)
        mean = self.spread * self.kernel.slope(rows, self.rows, direction @ self._solved.T)
        solved = scipy.linalg.cho_solve(self._factor, k.T).T
        left = self.kernel.diagonal_slope(rows) - 2 * self.kernel.slope(rows, self.rows, solved)
        return mean, self.spread**2 * self.scale * left
