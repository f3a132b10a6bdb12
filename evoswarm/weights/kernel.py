"""The inner product of materialising: out[r] = sum_j c[r, j] * parts[j], in fp32, in the order of j.

Every product and every sum is one correctly rounded IEEE operation, so numpy and the compiled loop give the same bits
on every processor. (No fused multiply-add and no BLAS: their rounding depends on shapes and on the processor.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
COMPILE_ABOVE = 300_000_000
"""Multiply-adds from which loading the compiler (seconds, 65 MB) pays."""


def combine_for(multiply_adds: int) -> Combine:
    """The faster of two equal implementations for a job of this size."""
    return compiled() if multiply_adds > COMPILE_ABOVE else combine_numpy


def combine_numpy(parts: np.ndarray, coefficients: np.ndarray, out: np.ndarray) -> None:
    """
    Args:
        parts: basis chunks [J, n], fp32, contiguous.
        coefficients: [R, J], fp32, contiguous.
        out: result [R, n], fp32, contiguous, overwritten.
    """
    product = np.empty(parts.shape[1], np.float32)
    for total, row in zip(out, coefficients, strict=True):
        terms = np.flatnonzero(row)
        if terms.size == 0:
            total.fill(0)
            continue
        # The first product starts the sum: adding it to 0 would turn an expert's -0.0 into 0.0.
        np.multiply(parts[terms[0]], row[terms[0]], out=total)
        for j in terms[1:]:
            np.multiply(parts[j], row[j], out=product)
            np.add(total, product, out=total)


@cache
def compiled() -> Combine:
    """The same as `combine_numpy`, as machine code; numba fuses no operations unless asked for fastmath."""
    from numba import float32, njit, void

    @njit(nogil=True, error_model="numpy", boundscheck=False)
    def set_scaled(total, part, value):  # type: ignore[no-untyped-def]
        for i in range(total.size):
            total[i] = value * part[i]

    @njit(nogil=True, error_model="numpy", boundscheck=False)
    def add_scaled(total, part, value):  # type: ignore[no-untyped-def]
        for i in range(total.size):
            total[i] += value * part[i]

    # Without contiguous arrays the inner loop is not vectorised; with a signature it is compiled once.
    signature = void(float32[:, ::1], float32[:, ::1], float32[:, ::1])

    @njit(signature, nogil=True, error_model="numpy", boundscheck=False)
    def combine(parts, coefficients, out):  # type: ignore[no-untyped-def]
        block = 2048
        accumulator = np.empty(block, np.float32)
        for start in range(0, parts.shape[1], block):
            stop = min(parts.shape[1], start + block)
            total = accumulator[: stop - start]
            for r in range(coefficients.shape[0]):
                first = True
                for j in range(coefficients.shape[1]):
                    if coefficients[r, j] != 0:
                        if first:
                            set_scaled(total, parts[j, start:stop], coefficients[r, j])
                            first = False
                        else:
                            add_scaled(total, parts[j, start:stop], coefficients[r, j])
                if first:
                    total[:] = 0
                out[r, start:stop] = total

    result: Combine = combine
    return result
