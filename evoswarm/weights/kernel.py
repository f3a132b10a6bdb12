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
    def set_one(total, part, value):  # type: ignore[no-untyped-def]
        for i in range(total.size):
            total[i] = value * part[i]

    @njit(nogil=True, error_model="numpy", boundscheck=False)
    def add_one(total, part, value):  # type: ignore[no-untyped-def]
        for i in range(total.size):
            total[i] += value * part[i]

    # Four terms at a time keep the sum in a register; the order of the operations stays.
    @njit(nogil=True, error_model="numpy", boundscheck=False)
    def add_four(total, part0, part1, part2, part3, values):  # type: ignore[no-untyped-def]
        value0, value1, value2, value3 = values[0], values[1], values[2], values[3]
        for i in range(total.size):
            sum_ = total[i] + value0 * part0[i]
            sum_ = sum_ + value1 * part1[i]
            sum_ = sum_ + value2 * part2[i]
            total[i] = sum_ + value3 * part3[i]

    # Without contiguous arrays the inner loop is not vectorised; with a signature it is compiled once.
    signature = void(float32[:, ::1], float32[:, ::1], float32[:, ::1])

    @njit(signature, nogil=True, error_model="numpy", boundscheck=False)
    def combine(parts, coefficients, out):  # type: ignore[no-untyped-def]
        block = 2048
        for r in range(coefficients.shape[0]):
            terms = np.flatnonzero(coefficients[r])
            values = coefficients[r][terms]
            if terms.size == 0:
                out[r] = 0
                continue
            for start in range(0, parts.shape[1], block):
                stop = min(parts.shape[1], start + block)
                total = out[r, start:stop]
                set_one(total, parts[terms[0], start:stop], values[0])
                k = 1
                while k + 4 <= terms.size:
                    part0, part1 = parts[terms[k], start:stop], parts[terms[k + 1], start:stop]
                    part2, part3 = parts[terms[k + 2], start:stop], parts[terms[k + 3], start:stop]
                    add_four(total, part0, part1, part2, part3, values[k : k + 4])
                    k += 4
                while k < terms.size:
                    add_one(total, parts[terms[k], start:stop], values[k])
                    k += 1

    result: Combine = combine
    return result
