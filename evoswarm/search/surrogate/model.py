"""The surrogate of a utility: calibrated posterior log-odds, averaged over weighted examples."""

from __future__ import annotations

import numpy as np

from evoswarm.search.surrogate.calibrate import Calibration, calibrate, log_odds
from evoswarm.search.surrogate.process import Process

TINY = 1e-9
"""The least standard deviation of a utility."""


class Surrogate:
    """Expected utility of rows that were not measured.

    Attributes:
        rows: the measured rows [n, J].
        examples: number of examples, E.
        outcomes: scores as shares of their range [n, E].
        low, high: range of the scores, at least 0 to 1. Utilities are shares of it, except in `forecast`.
    """

    def __init__(self, rows: np.ndarray, gold: np.ndarray, scores: np.ndarray) -> None:
        """
        Args:
            rows: measured rows [n, J].
            gold: log-probability of the gold answer of each example [n, E]; NaN if unknown.
            scores: outcomes [n, E]; scores outside of [0, 1] are rescaled.
        """
        self.low, self.high = span(scores)
        self.outcomes = outcomes = unit(scores)
        odds = log_odds(gold, outcomes)
        self.rows, self.examples = rows, scores.shape[1]
        self.calibration: Calibration = calibrate(odds, outcomes)
        self.process = Process(rows, odds)

    def utility(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """sum_e w_e P(right) of rows [m, J] under example weights [E], or [m, E] for each row its own: [m]."""
        return np.asarray((self._right(rows) * weights).sum(1))

    def forecast(self, rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected mean score of rows [m, J] under example weights [E], and its standard deviation: [m], [m].

        The deviation is that of independent outcomes, times the `doubt`.
        """
        mean, deviation = _moments(self._right(rows), weights)
        deviation = np.minimum(self.doubt(weights) * deviation, 0.5)
        return self.low * (1 - mean) + self.high * mean, (self.high / 2 - self.low / 2) * (2 * deviation)

    def doubt(self, weights: np.ndarray) -> float:
        """How much larger its errors are than if outcomes were independent, at least 1.

        It is the root mean square, over the measured rows, of the error of the utility that is predicted from all other
        rows, in standard deviations.
        """
        means, variances = self.process.left_out()
        expected, deviation = _moments(self.calibration(means, variances[:, None]), weights)
        errors = (self.outcomes @ weights - expected) / np.maximum(deviation, TINY)
        return max(1.0, float(np.sqrt(np.mean(errors**2))))

    def _right(self, rows: np.ndarray) -> np.ndarray:
        """P(right) of rows [m, J] on each example [m, E]."""
        mean, variance = self.process.predict(rows)
        return self.calibration(mean, variance[:, None])

    def slope(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The gradient of the utility at each of the rows [m, J], each with its own example weights [m, E]: [m, J]."""
        mean, variance = self.process.predict(rows)
        a, b = self.calibration.intercept, self.calibration.slope
        shrink = self.calibration.shrink(variance)
        p = self.calibration(mean, variance[:, None])
        push = weights * p * (1 - p)
        rise, spread = self.process.slopes(rows, push)
        narrower = -np.pi / 16 * b**2 * shrink**3 * (push * (a + b * mean)).sum(1)
        return np.asarray((b * shrink)[:, None] * rise + narrower[:, None] * spread)


def _moments(p: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [m] of the weighted share of right answers, which are independent with chances p."""
    return p @ weights, np.sqrt((p * (1 - p)) @ weights**2)


def span(scores: np.ndarray) -> tuple[float, float]:
    """The range of scores, at least 0 to 1."""
    return min(0.0, float(scores.min())), max(1.0, float(scores.max()))


def unit(scores: np.ndarray) -> np.ndarray:
    """Scores in [0, 1]: rescaled by their range if some are outside."""
    low, high = span(scores)
    return np.asarray((scores / 2 - low / 2) / (high / 2 - low / 2))  # halves, because a range may be too large
