"""From log-odds of the gold answer to the probability that the answer is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

LOWEST, HIGHEST = -20.0, 12.0
"""Log-odds are clipped to these."""
GUESS = 2.0
"""Log-odds of a right answer (minus it: of a wrong one) where no log-probability is known."""
LEAST_SLOPE = 0.05


@dataclass(frozen=True)
class Calibration:
    """P(right | h) = sigmoid(intercept + slope h)."""

    intercept: float
    slope: float

    def __call__(self, logodds: np.ndarray, variance: np.ndarray | float = 0.0) -> np.ndarray:
        """Probability of a right answer if h is normal with this mean and variance (MacKay's approximation).

        Source: MacKay 1992, the evidence framework applied to classification networks, equation 10.
        """
        return np.asarray(scipy.special.expit((self.intercept + self.slope * logodds) * self.shrink(variance)))

    def shrink(self, variance: np.ndarray | float) -> np.ndarray:
        """1 / sqrt(1 + pi b^2 s^2 / 8)."""
        return np.asarray(1 / np.sqrt(1 + np.pi / 8 * self.slope**2 * np.asarray(variance)))


def log_odds(gold: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """h = l - log(1 - exp l), clipped to [-20, 12].

    An unknown log-probability gets the mean of the known h with the same outcome.

    Args:
        gold: l, log-probability of the gold answer including its end [n, E]; NaN if unknown.
        scores: outcomes in [0, 1] [n, E].
    """
    known = ~np.isnan(gold)
    with np.errstate(divide="ignore"):
        logprob = np.minimum(np.where(known, gold, -1.0), 0.0)
        h = np.clip(logprob - np.log(-np.expm1(logprob)), LOWEST, HIGHEST)
    if known.all():
        return np.asarray(h)
    right, wrong = known & (scores >= 0.5), known & (scores < 0.5)
    high = h[right].mean() if right.any() else GUESS
    low = h[wrong].mean() if wrong.any() else -GUESS
    return np.asarray(np.where(known, h, low + (high - low) * scores))


def calibrate(logodds: np.ndarray, scores: np.ndarray) -> Calibration:
    """Logistic regression of all pairs of h and outcome, with prior N(0, 1) on both coefficients and slope >= 0.05."""
    h, y = logodds.reshape(-1), scores.reshape(-1)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        z = at[0] + at[1] * h
        off = scipy.special.expit(z) - y
        value = np.logaddexp(0.0, z).sum() - y @ z + 0.5 * at @ at
        return float(value), np.array([off.sum(), off @ h]) + at

    bounds = [(None, None), (LEAST_SLOPE, None)]
    found = scipy.optimize.minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(float(found.x[0]), float(found.x[1]))
