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
_PASSES = (10, 4, 2, 1)
"""Terms that one pass over the memory adds up in a register; a sum takes the largest passes that fit."""
_BLOCK = 4096
"""Scalars per pass: what several passes touch stays in the fastest cache, and a page is written in one go."""


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
    from numba import carray, float32, int64, njit, types, void
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

    pass_a, pass_b, pass_c, pass_d = (njit(_one_pass(terms, array), **settings) for terms in _PASSES)
    a, b, c, d = _PASSES

    @njit(void(int64[::1], float32[::1], float32[::1], int64), **settings)
    def one_block(parts, values, total, start):  # type: ignore[no-untyped-def]
        if values.size == 0:
            total[:] = 0
        k = 0
        while k < values.size:
            left = values.size - k
            if left >= a:
                pass_a(total, parts, values, start, k)
                k += a
            elif left >= b:
                pass_b(total, parts, values, start, k)
                k += b
            elif left >= c:
                pass_c(total, parts, values, start, k)
                k += c
            else:
                pass_d(total, parts, values, start, k)
                k += d

    @njit(void(int64[::1], float32[::1], int64[::1], int64[::1], int64), **settings)
    def all_blocks(parts, values, ends, targets, size):  # type: ignore[no-untyped-def]
        for start in range(0, size, _BLOCK):
            first = 0
            for r in range(targets.size):
                total = array(targets[r], start, min(_BLOCK, size - start))
                one_block(parts[first : ends[r]], values[first : ends[r]], total, start)
                first = ends[r]

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
        all_blocks(_addresses(parts)[terms], coefficients[rows, terms], ends, _addresses(out), out[0].size)

    return combine


def _addresses(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([array.ctypes.data for array in arrays], np.int64)


def _one_pass(terms: int, array: Any) -> Callable[..., None]:
    """A loop over one block that adds up the products of `terms` parts from part `k` on, behind what is there if k > 0.

    Written out, because a loop over the terms would not be unrolled and would write every partial sum to memory.
    """
    lines = ["def one_pass(total, parts, values, start, k):"]
    lines += [
        f"    part{n}, value{n} = array(parts[k + {n}], start, total.size), values[k + {n}]" for n in range(terms)
    ]
    for condition, first in (("if k:", "total[i] + value0 * part0[i]"), ("else:", "value0 * part0[i]")):
        lines += [f"    {condition}", "        for i in range(total.size):", f"            sum_ = {first}"]
        lines += [f"            sum_ = sum_ + value{n} * part{n}[i]" for n in range(1, terms)]
        lines += ["            total[i] = sum_"]
    scope = {"array": array}
    exec("\n".join(lines), scope)  # nosec
    loop: Callable[..., None] = scope["one_pass"]
    return loop
