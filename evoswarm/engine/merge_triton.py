"""W + s B A in one pass over the GPU's memory: reads W, A and B once and writes the result once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS, COLUMNS, STEP = 64, 128, 32
"""Tile of one program, and ranks per step: the fastest of ten choices on an H100."""


def merge(target: torch.Tensor, pristine: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """See `evoswarm.engine.merge.Merge.write`; all tensors are on one GPU, and rows of W are contiguous."""
    if a.dtype != b.dtype:
        a, b = a.float(), b.float()
    a, b = a.contiguous(), b.contiguous()
    (rows, columns), rank = target.shape, len(a)
    grid = (triton.cdiv(columns, COLUMNS), triton.cdiv(rows, ROWS))
    with torch.cuda.device(target.device):
        _merge[grid](
            target, pristine, a, b, scale, rows, columns, rank, target.stride(0), pristine.stride(0),
            ROWS=ROWS, COLUMNS=COLUMNS, STEP=STEP if rank > 16 else 16,
            SPLIT=a.dtype == torch.float32, num_warps=4, num_stages=3,
        )  # fmt: skip


@triton.jit
def _merge(  # type: ignore[no-untyped-def]
    target, pristine, a, b, scale, rows, columns, rank, target_row, pristine_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
    inside = (row < rows) & (column < columns)
    base = tl.load(pristine + row * pristine_row + column, mask=inside, other=0.0)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, rank, STEP):
        k = start + tl.arange(0, STEP)
        left = tl.load(b + row * rank + k[None, :], mask=(row < rows) & (k[None, :] < rank), other=0.0)
        right = tl.load(a + k[:, None] * columns + column, mask=(k[:, None] < rank) & (column < columns), other=0.0)
        if SPLIT:  # an fp32 factor is the sum of three of bf16; smaller products are added first
            left1, right1 = left.to(tl.bfloat16), right.to(tl.bfloat16)
            left_rest, right_rest = left - left1.to(tl.float32), right - right1.to(tl.float32)
            left2, right2 = left_rest.to(tl.bfloat16), right_rest.to(tl.bfloat16)
            left3 = (left_rest - left2.to(tl.float32)).to(tl.bfloat16)
            right3 = (right_rest - right2.to(tl.float32)).to(tl.bfloat16)
            product = tl.dot(left3, right1, product)
            product = tl.dot(left1, right3, product)
            product = tl.dot(left2, right2, product)
            product = tl.dot(left2, right1, product)
            product = tl.dot(left1, right2, product)
            product = tl.dot(left1, right1, product)
        else:  # products of 16-bit factors are exact in fp32
            product = tl.dot(left, right, product)
    merged = base.to(tl.float32) + scale * product
    tl.store(target + row * target_row + column, merged.to(target.dtype.element_ty), mask=inside)
