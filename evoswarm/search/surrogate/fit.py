"""Fits the kernel's parameters: the likelihood with its scale profiled out, and a prior."""

from __future__ import annotations

import numpy as np
import scipy

from evoswarm.search.surrogate.kernel import LEAST_NOISE, Kernel

PRIOR = {"length": 0.8, "constant": 1.0, "linear": 0.5, "noise": 0.1}
"""Medians of the prior."""
STRENGTH = 0.2
STEPS = 50
BOUND = 4.0
"""Log parameters stay within this distance of the prior's medians."""


def start(columns: int) -> np.ndarray:
    """The prior's medians as log parameters [J + 3]."""
    return np.log([PRIOR["length"]] * columns + [PRIOR["constant"], PRIOR["linear"], PRIOR["noise"]])


def fit(x: np.ndarray, y: np.ndarray) -> Kernel:
    """The kernel of rows x [n, J] with standardized outcomes y [n, E].

    All examples share the kernel, so the data enter as the matrix y y' [n, n] alone.
    """
    middle, inner = start(x.shape[1]), y @ y.T
    bounds = [(value - BOUND, value + BOUND) for value in middle]
    settings = {"maxiter": STEPS}
    found = scipy.optimize.minimize(
        loss, middle, (x, inner), jac=True, method="L-BFGS-B", bounds=bounds, options=settings
    )
    return Kernel.of(found.x)


def loss(parameters: np.ndarray, x: np.ndarray, inner: np.ndarray) -> tuple[float, np.ndarray]:
    """(n/2) log tr(Y' K^-1 Y) + 1/2 log|K| + 0.2 (minus twice the prior's log density), and its gradient [J + 3].

    Args:
        parameters: log of l, a0, a1, d [J + 3].
        x: rows [n, J].
        inner: Y Y' [n, n].
    """
    kernel, n = Kernel.of(parameters), len(x)
    smooth = kernel.smooth(x, x)
    scaled = x / kernel.lengths
    k = kernel.constant**2 + kernel.linear**2 * (scaled @ scaled.T) + smooth + kernel.variance * np.eye(n)
    factor = scipy.linalg.cho_factor(k, lower=True)
    inverse = scipy.linalg.cho_solve(factor, np.eye(n))
    solved = inverse @ inner
    total = max(float(np.trace(solved)), 1e-300)
    determinant = 2 * float(np.log(np.diag(factor[0])).sum())
    push = 0.5 * (inverse - n / total * solved @ inverse)  # d loss / d K
    weights = push * smooth
    squares = (weights.sum(1) @ scaled**2) - np.einsum("ij,ij->j", scaled, weights @ scaled)
    lengths = 2 * squares - 2 * kernel.linear**2 * np.einsum("ij,ij->j", scaled, push @ scaled)
    constant = 2 * kernel.constant**2 * push.sum()
    linear = 2 * kernel.linear**2 * np.einsum("ij,ij->", scaled, push @ scaled)
    noise = 2 * (kernel.noise + LEAST_NOISE) * kernel.noise * np.trace(push)
    prior, slope = _prior(parameters)
    gradient = np.concatenate([lengths, [constant, linear, noise]]) + slope
    return 0.5 * n * float(np.log(total)) + 0.5 * determinant + prior, gradient


def _prior(parameters: np.ndarray) -> tuple[float, np.ndarray]:
    """0.2 (2 sum_j (log l_j - log 0.8)^2 + 1/2 (log^2 a0 + (log a1 - log 0.5)^2 + (log d - log 0.1)^2))."""
    off = parameters - start(len(parameters) - 3)
    strength = STRENGTH * np.array([2.0] * (len(off) - 3) + [0.5] * 3)
    return float(strength @ off**2), 2 * strength * off
