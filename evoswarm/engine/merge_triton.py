"""W + s B A in one pass over the GPU's memory: reads W, A and B once and writes the result once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS, COLUMNS = 64, 128
"""Size of the tile that one program computes."""


def merge(target: torch.Tensor, pristine: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """See `evoswarm.engine.merge.merge_into`; all tensors are on one GPU."""
    if a.dtype != b.dtype:
        a, b = a.float(), b.float()
    (rows, columns), rank = target.shape, len(a)
    grid = (triton.cdiv(columns, COLUMNS), triton.cdiv(rows, ROWS))
    with torch.cuda.device(target.device):
        _merge[grid](
            target, pristine, a, b, scale, rows, columns, rank,
            *target.stride(), *pristine.stride(), *a.stride(), *b.stride(),
            ROWS=ROWS, COLUMNS=COLUMNS, STEP=32 if rank > 16 else 16,
        )  # fmt: skip


@triton.jit
def _merge(  # type: ignore[no-untyped-def]
    target, pristine, a, b, scale, rows, columns, rank,
    target_row, target_column, pristine_row, pristine_column, a_row, a_column, b_row, b_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
    inside = (row < rows) & (column < columns)
    base = tl.load(pristine + row * pristine_row + column * pristine_column, mask=inside, other=0.0)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, rank, STEP):
        k = start + tl.arange(0, STEP)
        left = tl.load(b + row * b_row + k[None, :] * b_column, mask=(row < rows) & (k[None, :] < rank), other=0.0)
        right = tl.load(
            a + k[:, None] * a_row + column * a_column, mask=(k[:, None] < rank) & (column < columns), other=0.0
        )
        # Three TF32 products give fp32 accuracy; bf16 and fp16 factors are multiplied exactly.
        product = tl.dot(left, right, product, input_precision="tf32x3")
    merged = base.to(tl.float32) + scale * product
    tl.store(target + row * target_row + column * target_column, merged.to(target.dtype.element_ty), mask=inside)
