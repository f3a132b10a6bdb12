"""Both implementations of the sum give the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from evoswarm.weights.kernel import COMPILE_ABOVE, combine_for, combine_numpy, compiled


@pytest.fixture(scope="module")
def nasty() -> np.ndarray:
    """Parts [28, 9001]: ordinary, huge and tiny numbers, denormals, both zeros."""
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((28, 9001)).astype(np.float32)
    parts[1] *= np.float32(1e-38)
    parts[2] *= np.float32(1e30)
    parts[3, ::3] = -0.0
    parts[4, ::2] = np.float32(1e-45)
    parts[5] = np.exp(rng.uniform(-40, 40, 9001)).astype(np.float32)
    return parts


@pytest.mark.parametrize("size", [0, 1, 7, 8191, 8192, 8193, 9001])
def test_numpy_and_machine_code_give_the_same_bits(nasty: np.ndarray, size: int) -> None:
    # Row r has r terms, so sums of every length occur.
    rng = np.random.default_rng(size)
    coefficients = np.zeros((29, 28), np.float32)
    for r, row in enumerate(coefficients):
        row[rng.permutation(28)[:r]] = rng.standard_normal(r)
    left, right = np.full((29, size), 7, np.float32), np.full((29, size), 9, np.float32)
    parts = nasty[:, :size]
    combine_numpy(parts, coefficients, left)
    compiled()(parts, coefficients, right)
    assert left.tobytes() == right.tobytes()
    assert not left[0].any()


@pytest.mark.parametrize("terms", [9, 10, 14, 28])
def test_a_row_gives_the_same_bits_alone_and_with_others(nasty: np.ndarray, terms: int) -> None:
    rng = np.random.default_rng(terms)
    coefficients = rng.standard_normal((17, 28)).astype(np.float32)
    coefficients[:, terms:] = 0
    coefficients[6, 0] = coefficients[7, 1] = 0  # as many terms as each other, but not the same ones
    left, right, alone = (np.empty((17, 9001), np.float32) for _ in range(3))
    combine_numpy(nasty, coefficients, left)
    compiled()(nasty, coefficients, right)
    for r in range(17):
        compiled()(nasty, coefficients[r : r + 1], alone[r : r + 1])
    assert left.tobytes() == right.tobytes() == alone.tobytes()


@pytest.mark.parametrize("combine", [combine_numpy, lambda *arrays: compiled()(*arrays)])
def test_a_single_part_with_coefficient_one_keeps_its_bits(nasty: np.ndarray, combine) -> None:  # type: ignore[no-untyped-def]
    out = np.empty_like(nasty)
    combine(nasty, np.eye(28, dtype=np.float32), out)
    assert out.tobytes() == nasty.tobytes()


def test_products_are_rounded_before_they_are_added() -> None:
    # (1 + e)^2 - 1 is 2 e + e^2: a fused multiply-add would keep the e^2.
    e = np.float32(2**-12)
    parts = np.array([[-1.0], [1 + e]], np.float32)
    coefficients = np.array([[1, 1 + e]], np.float32)
    for combine in (combine_numpy, compiled()):
        out = np.empty((1, 1), np.float32)
        combine(parts, coefficients, out)
        assert out[0, 0] == 2 * e


def test_only_large_jobs_are_compiled() -> None:
    assert combine_for(COMPILE_ABOVE) is combine_numpy
    assert combine_for(COMPILE_ABOVE + 1) is compiled()
