"""The inner product of materialising: out[r] = sum_j c[r, j] * parts[j], in fp32, in the order of j.

Every product and every sum is one correctly rounded IEEE operation, so numpy and the compiled loop give the same bits
on every processor. (No fused multiply-add and no BLAS: their rounding depends on shapes and on the processor.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

Combine = Callable[[Sequence[np.ndarray], np.ndarray, Sequence[np.ndarray]], None]
COMPILE_ABOVE = 300_000_000
"""Multiply-adds from which loading the compiler (seconds, 65 MB) pays."""
_TERMS = (10, 4, 2, 1)
"""Terms that one pass over the memory adds up in a register; a sum takes the largest passes that fit."""
_ROWS = 5
"""Rows that one pass of most terms makes together: a part is loaded once for all of them."""
_BLOCK = 8192
"""Scalars per pass: what several passes touch stays in the core's own cache, and a page is written in one go."""


def combine_for(multiply_adds: int) -> Combine:
    """The faster of two equal implementations for a job of this size."""
    return compiled() if multiply_adds > COMPILE_ABOVE else combine_numpy


def combine_numpy(parts: Sequence[np.ndarray], coefficients: np.ndarray, out: Sequence[np.ndarray]) -> None:
    """
    Args:
        parts: J basis chunks [n], fp32, contiguous.
        coefficients: [R, J], fp32, contiguous.
        out: R results [n], fp32, contiguous, overwritten.
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
    """The same as `combine_numpy`, as machine code; numba fuses no operations unless asked for fastmath."""
    from numba import boolean, carray, float32, int64, njit, types, void
    from numba.extending import intrinsic

    settings = {"nogil": True, "error_model": "numpy", "boundscheck": False}

    @intrinsic
    def pointer(context, address):  # type: ignore[no-untyped-def]
        def cast(target, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

        return types.CPointer(float32)(int64), cast

    @njit(**settings)
    def array(address, start, size):  # type: ignore[no-untyped-def]
        return carray(pointer(address + 4 * start), size)

    most = _TERMS[0]
    rows_pass = njit(_one_pass(_ROWS, most, array), **settings)
    pass_a, pass_b, pass_c, pass_d = (njit(_one_pass(1, terms, array), **settings) for terms in _TERMS)
    a, b, c, d = _TERMS

    @njit(void(int64[::1], float32[::1], int64[::1], boolean[::1], int64[::1], int64, int64), **settings)
    def all_blocks(parts, values, ends, alike, targets, nothing, size):  # type: ignore[no-untyped-def]
        for start in range(0, size, _BLOCK):
            width = min(_BLOCK, size - start)
            first, ready = 0, 0
            for r in range(targets.size):
                count, target, k = ends[r] - first, targets[r] + 4 * start, 0
                if r >= ready and alike[r]:
                    rows_pass(targets, r, parts, values, first, count, nothing, start, width)
                    ready = r + _ROWS
                if r < ready:
                    k = most
                if count == 0:
                    array(target, 0, width)[:] = 0
                while k < count:
                    left, before = count - k, target if k else nothing
                    if left >= a:
                        pass_a(targets, r, parts, values, first + k, a, before, start, width)
                        k += a
                    elif left >= b:
                        pass_b(targets, r, parts, values, first + k, b, before, start, width)
                        k += b
                    elif left >= c:
                        pass_c(targets, r, parts, values, first + k, c, before, start, width)
                        k += c
                    else:
                        pass_d(targets, r, parts, values, first + k, d, before, start, width)
                        k += d
                first = ends[r]

    # What a sum starts from: adding an expert's -0.0 to 0.0 would give 0.0.
    minus_zero = np.full(_BLOCK, -0.0, np.float32)

    def combine(parts: Sequence[np.ndarray], coefficients: np.ndarray, out: Sequence[np.ndarray]) -> None:
        plain = all(array.dtype == np.float32 and array.flags.c_contiguous for array in (*parts, *out))
        sizes = {array.size for array in (*parts, *out)}
        if not plain or len(sizes) > 1 or not all(array.flags.writeable for array in out):
            raise ValueError("parts and results must be contiguous fp32 arrays of one size, and results writeable")
        if coefficients.shape != (len(out), len(parts)):
            raise ValueError(f"coefficients are {coefficients.shape}, not {(len(out), len(parts))}")
        if not len(out):
            return
        rows, terms = np.nonzero(coefficients)
        ends = np.cumsum(np.bincount(rows, minlength=len(out)))
        begin, targets, size = minus_zero.ctypes.data, _addresses(out), out[0].size
        all_blocks(
            _addresses(parts)[terms], coefficients[rows, terms], ends, _alike(coefficients), targets, begin, size
        )

    return combine


def _addresses(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([array.ctypes.data for array in arrays], np.int64)


def _alike(coefficients: np.ndarray) -> np.ndarray:
    """[R], whether row r and those after it, `_ROWS` in all, are sums of the same parts, enough for a whole pass."""
    used = coefficients != 0
    kind = np.append(0, np.cumsum((used[1:] != used[:-1]).any(axis=1)))
    last = len(used) - _ROWS + 1
    alike = np.zeros(len(used), np.bool_)
    if last > 0:
        alike[:last] = kind[:last] == kind[_ROWS - 1 :]
    return alike & (used.sum(axis=1) >= _TERMS[0])


def _one_pass(rows: int, terms: int, array: Any) -> Callable[..., None]:
    """A loop over one block: for `rows` rows from r on, what is at `before` and the products of `terms` parts.

    Written out, because a loop over the terms would not be unrolled and would write every partial sum to memory. Values
    of the rows are `stride` apart, and their parts are the same ones.
    """
    lines = ["def one_pass(targets, r, parts, values, first, stride, before, start, size):"]
    lines += ["    begin = array(before, 0, size)"]
    lines += [f"    part{n} = array(parts[first + {n}], start, size)" for n in range(terms)]
    for q in range(rows):
        lines += [f"    total{q} = array(targets[r + {q}], start, size)"]
        lines += [f"    value{q}_{n} = values[first + {q} * stride + {n}]" for n in range(terms)]
    lines += ["    for i in range(size):"]
    lines += [f"        scalar{n} = part{n}[i]" for n in range(terms)]
    for q in range(rows):
        lines += [f"        sum{q} = begin[i]"]
        lines += [f"        sum{q} = sum{q} + value{q}_{n} * scalar{n}" for n in range(terms)]
    # Written last: the compiler would have to load every part again behind a store that might have changed it.
    lines += [f"        total{q}[i] = sum{q}" for q in range(rows)]
    scope = {"array": array}
    exec("\n".join(lines), scope)  # nosec
    loop: Callable[..., None] = scope["one_pass"]
    return loop
