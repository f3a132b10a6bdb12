"""Each formula of the surrogate against a plain computation, and each gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from evoswarm.search.surrogate import Surrogate
from evoswarm.search.surrogate.calibrate import Calibration, calibrate, log_odds
from evoswarm.search.surrogate.fit import fit, loss, start
from evoswarm.search.surrogate.kernel import Kernel
from evoswarm.search.surrogate.model import unit
from evoswarm.search.surrogate.process import Process
from evoswarm.search.surrogate.propose import Box, Simplex, optima

J, E, N = 4, 7, 9
KERNEL = Kernel(np.array([0.5, 0.8, 1.1, 2.0]), constant=0.7, linear=0.4, noise=0.2)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    return rng.dirichlet(np.ones(J), size=N)


def naive(kernel: Kernel, x: np.ndarray, z: np.ndarray) -> float:
    dot = sum(a * b / length**2 for a, b, length in zip(x, z, kernel.lengths, strict=True))
    square = sum((a - b) ** 2 / length**2 for a, b, length in zip(x, z, kernel.lengths, strict=True))
    return kernel.constant**2 + kernel.linear**2 * dot + math.exp(-square / 2)


def test_the_kernel_is_its_formula(rows: np.ndarray) -> None:
    expected = [[naive(KERNEL, x, z) for z in rows[:3]] for x in rows]
    np.testing.assert_allclose(KERNEL.matrix(rows, rows[:3]), expected)
    np.testing.assert_allclose(KERNEL.diagonal(rows), [naive(KERNEL, x, x) for x in rows])


def test_the_slopes_of_the_kernel_are_its_finite_differences(rows: np.ndarray, rng: np.random.Generator) -> None:
    v = rng.normal(size=(2, N))
    for i, c in enumerate(rows[:2] + 0.1):
        expected = approx_fprime(c, lambda q, i=i: float(v[i] @ KERNEL.matrix(q[None], rows)[0]), 1e-7)
        np.testing.assert_allclose(KERNEL.slope(rows[:2] + 0.1, rows, v)[i], expected, atol=1e-6)
        own = approx_fprime(c, lambda q: naive(KERNEL, q, q), 1e-7)
        np.testing.assert_allclose(KERNEL.diagonal_slope(c[None])[0], own, atol=1e-6)


def test_the_loss_of_the_fit_is_its_formula(rows: np.ndarray, rng: np.random.Generator) -> None:
    y, at = rng.normal(size=(N, E)), start(J) + 0.3 * rng.normal(size=J + 3)
    kernel = Kernel.of(at)
    k = kernel.matrix(rows, rows) + (kernel.noise + 0.03) ** 2 * np.eye(N)
    off = at - np.log([0.8] * J + [1, 0.5, 0.1])
    prior = 0.2 * (2 * (off[:J] ** 2).sum() + 0.5 * (off[J:] ** 2).sum())
    expected = N / 2 * np.log(np.trace(y.T @ np.linalg.inv(k) @ y)) + 0.5 * np.linalg.slogdet(k)[1] + prior
    value, gradient = loss(at, rows, y @ y.T)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(gradient, approx_fprime(at, lambda q: loss(q, rows, y @ y.T)[0], 1e-7), atol=1e-4)


def test_the_fit_is_better_than_its_start(rows: np.ndarray, rng: np.random.Generator) -> None:
    y = np.sin(4 * rows @ rng.normal(size=(J, E)))
    found = fit(rows, y)
    fitted = np.log([*found.lengths, found.constant, found.linear, found.noise])
    assert loss(fitted, rows, y @ y.T)[0] < loss(start(J), rows, y @ y.T)[0] - 0.1


def test_the_posterior_is_that_of_one_process_per_example(rows: np.ndarray, rng: np.random.Generator) -> None:
    values, at = rng.normal(size=(N, E)), rng.dirichlet(np.ones(J), size=3)
    process = Process(rows, values, KERNEL)
    k = KERNEL.matrix(rows, rows) + KERNEL.variance * np.eye(N)
    y = (values - values.mean(0)) / (values - values.mean(0)).std()
    mean, variance = process.predict(at)
    cross = KERNEL.matrix(at, rows)
    for e in range(E):
        expected = values[:, e].mean() + process.spread * cross @ np.linalg.solve(k, y[:, e])
        np.testing.assert_allclose(mean[:, e], expected)
    left = KERNEL.diagonal(at) - np.einsum("ij,ji->i", cross, np.linalg.solve(k, cross.T))
    scale = np.trace(y.T @ np.linalg.solve(k, y)) / (N * E)
    np.testing.assert_allclose(variance, process.spread**2 * scale * left)


def test_log_odds_are_exact_and_clipped() -> None:
    gold = np.log(np.array([[0.5, 0.9, 1e-3, 0.0 + 1e-30, 1.0]]))
    found = log_odds(gold, np.ones((1, 5)))
    np.testing.assert_allclose(found[0, :3], np.log([1, 9, 1e-3 / 0.999]), atol=1e-12)
    assert found[0, 3:].tolist() == [-20, 12]
    assert log_odds(np.array([[-1000.0, 1e-9]]), np.ones((1, 2))).tolist() == [[-20, 12]]


def test_an_unknown_log_probability_gets_the_mean_of_those_with_its_outcome() -> None:
    gold = np.array([[np.log(0.5), np.log(0.9), np.log(0.1), np.nan, np.nan]])
    found = log_odds(gold, np.array([[1.0, 1.0, 0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(found[0, 3:], [np.log(9) / 2, -np.log(9)])
    nothing = log_odds(np.full((1, 3), np.nan), np.array([[0.0, 0.5, 1.0]]))
    assert nothing.tolist() == [[-2, 0, 2]]


def test_the_calibration_is_a_logistic_regression_with_its_prior(rng: np.random.Generator) -> None:
    h = rng.normal(size=(20, 10)) * 3
    y = (rng.random(h.shape) < 1 / (1 + np.exp(-(0.4 + 0.7 * h)))).astype(float)
    found = calibrate(h, y)
    at = np.array([found.intercept, found.slope])
    p = 1 / (1 + np.exp(-(at[0] + at[1] * h)))
    np.testing.assert_allclose([(y - p).sum() - at[0], ((y - p) * h).sum() - at[1]], 0, atol=0.05)
    assert calibrate(h, 1 - y).slope == pytest.approx(0.05)


def test_the_probability_shrinks_with_the_variance() -> None:
    calibration = Calibration(0.3, 0.8)
    expected = 1 / (1 + np.exp(-(0.3 + 0.8 * 2) / np.sqrt(1 + np.pi * 0.64 * 5 / 8)))
    assert calibration(np.array(2.0), np.array(5.0)) == pytest.approx(expected)


@pytest.fixture
def surrogate(rows: np.ndarray, rng: np.random.Generator) -> Surrogate:
    gold = -np.exp(rows @ rng.normal(size=(J, E)) + rng.normal(size=E))
    return Surrogate(rows, gold, (gold > -0.7).astype(float))


def test_the_slope_of_the_utility_is_its_finite_difference(surrogate: Surrogate, rng: np.random.Generator) -> None:
    at, weights = rng.uniform(-0.2, 1, size=(3, J)), rng.dirichlet(np.ones(E), size=3)
    for c, w, slope in zip(at, weights, surrogate.slope(at, weights), strict=True):
        expected = approx_fprime(c, lambda q, w=w: surrogate.utility(q[None], w)[0], 1e-7)
        np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["simplex", "box"])
def test_an_optimum_is_in_its_region_and_better_than_any_row_drawn_there(
    surrogate: Surrogate, rng: np.random.Generator, kind: str
) -> None:
    center = surrogate.rows[0]
    region = Simplex(center) if kind == "simplex" else Box(center, 0.2, -0.5, 1.5)
    weights = np.full((2, E), 1 / E)
    found = optima(surrogate, region, weights, np.array([region.starts(8, rng) for _ in weights]))
    drawn = region.starts(500, rng)
    assert (surrogate.utility(found, weights) > surrogate.utility(drawn, weights[0]).max() - 1e-4).all()
    if isinstance(region, Simplex):
        np.testing.assert_allclose(found.sum(1), 1)
        assert (found >= 0).all()
    else:
        assert (np.abs(found - center) <= 0.2 + 1e-12).all() and (found >= -0.5).all() and (found <= 1.5).all()


def test_scores_outside_of_0_to_1_are_rescaled() -> None:
    assert unit(np.array([[0.0, 0.25], [1.0, 0.5]])).tolist() == [[0.0, 0.25], [1.0, 0.5]]
    assert unit(np.array([[-1.0, 0.0, 3.0]])).tolist() == [[0.0, 0.25, 1.0]]
    assert np.isfinite(unit(np.array([[-1e308, 1e308]]))).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-20.0, 80.0), (-1e308, 1e308)])
def test_a_forecast_is_on_the_scale_of_the_scores(rows: np.ndarray, rng: np.random.Generator, low: float, high: float):
    right = rng.random((N, E)) < 0.6
    surrogate = Surrogate(rows, np.full((N, E), np.nan), np.where(right, high, low))
    weights = np.full(E, 1 / E)
    share = surrogate.utility(rows, weights)
    mean, deviation = surrogate.forecast(rows, weights)
    np.testing.assert_allclose(mean, low * (1 - share) + high * share)
    h, variance = surrogate.process.predict(rows)
    p = surrogate.calibration(h, variance[:, None])
    draws = (rng.random((4000, N, E)) < p).mean(2).std(0)
    independent = np.minimum(surrogate.doubt(weights) * draws, 0.5)
    np.testing.assert_allclose(deviation / (high / 2 - low / 2) / 2, independent, rtol=0.1)


def test_a_row_is_predicted_from_all_others(rows: np.ndarray, rng: np.random.Generator) -> None:
    values = rng.normal(size=(N, E))
    process = Process(rows, values, KERNEL)
    means, variances = process.left_out()
    y = (values - process.mean) / process.spread
    for i in range(N):
        others = np.arange(N) != i
        k = KERNEL.matrix(rows[others], rows[others]) + KERNEL.variance * np.eye(N - 1)
        cross = KERNEL.matrix(rows[[i]], rows[others])
        np.testing.assert_allclose(means[i], process.mean + process.spread * (cross @ np.linalg.solve(k, y[others]))[0])
        left = KERNEL.diagonal(rows[[i]])[0] - (cross @ np.linalg.solve(k, cross.T))[0, 0]
        np.testing.assert_allclose(variances[i], process.spread**2 * process.scale * left)


def test_errors_that_all_examples_share_widen_the_forecast(rows: np.ndarray, rng: np.random.Generator) -> None:
    weights = np.full(200, 1 / 200)
    luck = rng.random((N, 200))
    alone, shared = (
        Surrogate(rows, np.full((N, 200), np.nan), (luck < share).astype(float))
        for share in (0.5, np.where(rng.random((N, 1)) < 0.5, 0.2, 0.8))
    )
    assert alone.doubt(weights) < 2 < shared.doubt(weights)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_equal_outcomes_everywhere_are_no_problem(rows: np.ndarray, score: float) -> None:
    for gold in (np.full((N, E), np.nan), np.full((N, E), -0.1), np.zeros((N, E))):
        surrogate = Surrogate(rows, gold, np.full((N, E), score))
        found = surrogate.utility(rows, np.full(E, 1 / E))
        assert np.isfinite(found).all() and np.ptp(found) < 1e-12


def test_equal_rows_are_no_problem(rng: np.random.Generator) -> None:
    rows = np.repeat(rng.dirichlet(np.ones(J), size=2), 5, axis=0)
    surrogate = Surrogate(rows, -rng.exponential(size=(10, E)), rng.integers(0, 2, size=(10, E)).astype(float))
    assert np.isfinite(surrogate.slope(rows, np.full((10, E), 1 / E))).all()
