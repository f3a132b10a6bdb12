"""The arithmetic of installing an adapter: W + s B A, written into the tensor that an engine holds.

Source: LoRA (arXiv 2106.09685). Products and sums are fp32, with one rounding to the tensor's data type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from evoswarm.errors import UserError

FLOATS = (torch.bfloat16, torch.float16, torch.float32)
"""Data types of tensors that can be merged into."""
BLOCK = 1 << 20
"""Scalars per thread merged at a time on a CPU: 4 MB of fp32 stay in the shared cache. Smaller blocks cost more waiting
for other threads than they gain."""
CUDA_BLOCK = 1 << 23
"""Scalars merged at a time on a GPU without Triton: 32 MB of fp32 stay in its L2 cache."""


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """
    Raises:
        UserError: a tensor of the base, by name, is quantized.
    """
    if dtype not in FLOATS:
        raise UserError(f"the experts do not fit: {quantized(name, str(dtype).removeprefix('torch.'))}")


def quantized(name: str, kind: str) -> str:
    """The problem with an adapter of a quantized tensor."""
    return (
        f"{name} is {kind} in the base model; experts can be installed into bfloat16, float16 and float32 only, so set "
        "`model` to the unquantized base"
    )


@dataclass(frozen=True)
class Merge:
    """pristine + scale * B A, for one tensor that an engine holds.

    Attributes:
        target: [out, in], bf16, fp16 or fp32; may be a view of a larger tensor.
        pristine: the base's values in the same shape, on any device; may be `target` itself.
        a: [r, in], on any device.
        b: [out, r], on any device.
        scale: the adapter's factor s.
        transposed: target and pristine are [in, out].
    """

    target: torch.Tensor
    pristine: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool = False

    @torch.no_grad()
    def write(self) -> None:
        """Write it into `target`, on the target's device."""
        target = self.target
        pristine, a, b = (part.to(target.device, non_blocking=True) for part in (self.pristine, *self._factors()))
        kernel = triton_kernel() if target.is_cuda and target.stride(1) == pristine.stride(1) == 1 else None
        (_merge_blocks if kernel is None else kernel)(target, pristine, a, b, self.scale)

    @torch.no_grad()
    def is_written(self) -> bool:
        """Whether some rows of `target` are what `write` should write, by float64 arithmetic on the CPU."""
        a, b = self._factors()
        rows = torch.linspace(0, len(self.target) - 1, min(4, len(self.target))).long()
        start, factor, have = (part[rows.to(part.device)].cpu().double() for part in (self.pristine, b, self.target))
        exact = start + self.scale * (factor @ a.cpu().double())
        rounding, absolute = torch.finfo(self.target.dtype).eps, 1e-5 * float(exact.abs().max())
        return torch.allclose(have, exact, rtol=rounding, atol=absolute)

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B of the product in the target's own orientation."""
        return (self.b.T, self.a.T) if self.transposed else (self.a, self.b)


def _merge_blocks(target: torch.Tensor, pristine: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """Merge some rows at a time, so that their fp32 values stay in cache."""
    a, b = a.float(), b.float()
    size = CUDA_BLOCK if target.is_cuda else BLOCK * torch.get_num_threads()
    rows = max(1, size // target.shape[1])
    block = torch.empty(min(rows, len(target)), target.shape[1], device=target.device)
    for start in range(0, len(target), rows):
        part = slice(start, start + rows)
        total = block[: len(b[part])].copy_(pristine[part])
        target[part].copy_(total.addmm_(b[part], a, alpha=scale))


@cache
def triton_kernel() -> Any:
    """The fused GPU kernel, or None where Triton or the C compiler that it needs is missing."""
    try:
        from evoswarm.engine.merge_triton import merge

        tile = torch.ones(16, 16, device="cuda")
        merge(tile, tile, tile, tile, 1.0)
        return merge
    except Exception:  # Triton raises anything
        return None
