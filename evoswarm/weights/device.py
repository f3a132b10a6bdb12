"""Materialising on a GPU. The same operations in the same order, so the same bits as on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from evoswarm.rows import BasisVector
from evoswarm.weights.kernel import Combine
from evoswarm.weights.materialise import Materialiser
from evoswarm.weights.noise import CHUNK, noise_chunk
from evoswarm.weights.pool import Pool
from evoswarm.weights.tensorfile import TensorSpec

BLOCK = 1 << 24
"""Scalars per step: 64 MB in fp32 for each of source, product and one total per row."""


class DeviceMaterialiser(Materialiser):
    """Sums on `device`; products and sums are separate kernels, each correctly rounded in fp32.

    Results come back as host arrays, because they leave the actor through the object store. Noise is drawn on the CPU,
    whose stream defines it.
    """

    def __init__(self, pool: Pool, *, root: Path | None = None, device: str = "cuda") -> None:
        super().__init__(pool, root=root)
        self._device = torch.device(device)

    @torch.inference_mode()
    def _sum(
        self,
        executor: ThreadPoolExecutor,
        spec: TensorSpec,
        basis: list[BasisVector],
        coefficients: np.ndarray,
        combine: Combine,
        flats: list[np.ndarray],
    ) -> None:
        dtype = to_torch(np.empty(0, spec.numpy_dtype)).dtype
        sources = [self._source(vector, spec.name) for vector in basis]
        for start in range(0, spec.numel, BLOCK):
            stop = min(start + BLOCK, spec.numel)
            totals = torch.zeros((len(coefficients), stop - start), device=self._device)
            started = [False] * len(coefficients)
            for vector, source, column in zip(basis, sources, coefficients.T.tolist(), strict=True):
                part = self._part(vector, source, spec.name, start, stop)
                for r, value in enumerate(column):
                    if value != 0:
                        product = torch.mul(part, value)
                        totals[r] = totals[r].add_(product) if started[r] else product
                        started[r] = True
            rounded = totals.to(dtype).cpu()
            for line, result in zip(flats, rounded, strict=True):
                line[start:stop] = _to_numpy(result, spec)

    def _part(self, vector: BasisVector, source: np.ndarray | None, tensor: str, start: int, stop: int) -> torch.Tensor:
        if source is not None:
            return to_torch(source[start:stop]).to(self._device).float()
        chunks = range(start // CHUNK, -(-stop // CHUNK))
        parts = [noise_chunk(vector, tensor, c, min((c + 1) * CHUNK, stop) - c * CHUNK) for c in chunks]  # type: ignore[arg-type]
        return torch.from_numpy(np.concatenate(parts)).to(self._device)


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory where it can; numpy's bfloat16 becomes torch's."""
    if not array.flags.writeable:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_numpy(tensor: torch.Tensor, spec: TensorSpec) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(spec.numpy_dtype)
    return tensor.numpy()
