"""The inner product of materializing: out[r] = sum_j c[r, j] * parts[j], in fp32, in the order of j.

Every product and every sum is one correctly rounded IEEE operation, so numpy and compiled code give the same bits on
every processor. A fused multiply-add or BLAS would not: their rounding depends on shapes and on the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

Combine = Callable[[Sequence[np.ndarray], np.ndarray, Sequence[np.ndarray]], None]
COMPILE_ABOVE = 300_000_000
"""Multiply-adds above which compiling (4 s and 65 MB per process) pays off."""
_BLOCK = 8192
"""Scalars per step: one block of every part and result fits in a core's cache."""


def combine_for(multiply_adds: int) -> Combine:
    """The faster of two equivalent implementations for a job of this size."""
    return compiled() if multiply_adds > COMPILE_ABOVE else combine_numpy


def combine_numpy(parts: Sequence[np.ndarray], coefficients: np.ndarray, out: Sequence[np.ndarray]) -> None:
    """Write the weighted sums of J parts [n] into R results [n], all fp32 and contiguous; coefficients are [R, J].

    Parts with coefficient zero are skipped.
    """
    if not len(out):
        return
    product = np.empty_like(out[0])
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
    """`combine_numpy` in compiled code. numba does not fuse multiply and add unless `fastmath` is set."""
    from numba import njit, types
    from numba.typed import List

    # Parts are read-only, because most of them are views of memory-mapped files.
    part, result = types.Array(types.float32, 1, "C", readonly=True), types.Array(types.float32, 1, "C")
    signature = types.void(types.ListType(part), types.float32[:, ::1], types.ListType(result))
    loops = (_sum_five, _add_five, _add_one)
    sum_five, add_five, add_one = (njit(nogil=True, error_model="numpy")(loop) for loop in loops)

    @njit(signature, nogil=True, error_model="numpy")
    def dense(parts, coefficients, out):  # type: ignore[no-untyped-def]
        """The sums of rows that use every part, block by block and two rows at a time."""
        spare = np.empty(_BLOCK, np.float32)
        for start in range(0, out[0].size, _BLOCK):
            block = slice(start, start + _BLOCK)
            for r in range(0, len(out), 2):
                s = min(r + 1, len(out) - 1)  # an odd last row is paired with itself; its second result is never read
                x = out[r][block]
                y = out[s][block] if s > r else spare[: x.size]
                v, w = coefficients[r], coefficients[s]
                whole = len(parts) - len(parts) % 5
                for j in range(0, whole, 5):
                    a, b, c = parts[j][block], parts[j + 1][block], parts[j + 2][block]
                    d, e = parts[j + 3][block], parts[j + 4][block]
                    if j == 0:
                        sum_five(x, y, a, b, c, d, e, v, w)
                    else:
                        add_five(x, y, a, b, c, d, e, v[j : j + 5], w[j : j + 5])
                if whole == 0:
                    x[:] = y[:] = np.float32(-0.0)  # the neutral element: 0.0 would turn -0.0 into 0.0
                for j in range(whole, len(parts)):
                    add_one(x, y, parts[j][block], v[j], w[j])

    def listed(arrays: Iterable[np.ndarray], kind: Any) -> Any:
        items = List.empty_list(kind)
        for array in arrays:
            items.append(array)
        return items

    def combine(parts: Sequence[np.ndarray], coefficients: np.ndarray, out: Sequence[np.ndarray]) -> None:
        for terms, rows in _groups(coefficients):
            if terms:
                of_group = np.ascontiguousarray(coefficients[np.ix_(rows, terms)])
                used = listed((_read_only(parts[j]) for j in terms), part)
                dense(used, of_group, listed((out[r] for r in rows), result))
            else:
                for r in rows:
                    out[r].fill(0)

    return combine


def _sum_five(x, y, a, b, c, d, e, v, w):  # type: ignore[no-untyped-def]
    """Start the sums of two rows with five parts, in one pass over memory; each part is loaded once for both rows."""
    v0, v1, v2, v3, v4 = v[0], v[1], v[2], v[3], v[4]
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    for i in range(x.size):
        p = v0 * a[i] + v1 * b[i] + v2 * c[i] + v3 * d[i] + v4 * e[i]
        q = w0 * a[i] + w1 * b[i] + w2 * c[i] + w3 * d[i] + w4 * e[i]
        x[i], y[i] = p, q


def _add_five(x, y, a, b, c, d, e, v, w):  # type: ignore[no-untyped-def]
    """Add five more parts."""
    v0, v1, v2, v3, v4 = v[0], v[1], v[2], v[3], v[4]
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    for i in range(x.size):
        p = x[i] + v0 * a[i] + v1 * b[i] + v2 * c[i] + v3 * d[i] + v4 * e[i]
        q = y[i] + w0 * a[i] + w1 * b[i] + w2 * c[i] + w3 * d[i] + w4 * e[i]
        x[i], y[i] = p, q


def _add_one(x, y, a, v, w):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        x[i], y[i] = x[i] + v * a[i], y[i] + w * a[i]


def _groups(coefficients: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Groups of rows that use the same parts: (parts with nonzero coefficients, rows)."""
    groups: dict[bytes, list[int]] = {}
    used = coefficients != 0
    for r, mask in enumerate(used):
        groups.setdefault(mask.tobytes(), []).append(r)
    return [(np.flatnonzero(used[rows[0]]).tolist(), rows) for rows in groups.values()]


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
