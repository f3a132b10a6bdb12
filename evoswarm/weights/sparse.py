"""Sparsified experts: a seeded mask on what an expert changes, drawn in chunks so that any part can be drawn anywhere.

Source: DARE (arXiv 2311.03099), drop and rescale: m * delta / density, m ~ Bernoulli(density), delta = expert - base.
"""

from __future__ import annotations

import hashlib

import numpy as np

from evoswarm.rows import SparseVector
from evoswarm.weights.noise import CHUNK

SPARSE = 1
"""Keeps masks apart from the streams of noise."""


def mask_chunk(vector: SparseVector, tensor: str, chunk: int, size: int) -> np.ndarray:
    """Factors [size] of chunk number `chunk` of tensor `tensor`, fp32: 1 / density where a scalar stays, else 0."""
    names = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in (vector.name, tensor)]
    rng = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([SPARSE, vector.seed, vector.copy, *names, chunk]))
    )
    kept = rng.random(size, dtype=np.float32) < vector.density
    return np.where(kept, np.float32(1 / vector.density), np.float32(0))


class SparseValues:
    """The scalars of a sparsified expert in one block, computed where they are read."""

    dtype = None
    """It is read chunk by chunk, like noise."""

    def __init__(self, vector: SparseVector, tensor: str, expert: np.ndarray, base: np.ndarray | None) -> None:
        """`expert` [numel] and `base` [numel] are of the block `tensor`; without a base it is 0."""
        self._vector, self._tensor, self._expert, self._base = vector, tensor, expert, base

    def __getitem__(self, part: slice) -> np.ndarray:
        """A slice in fp32, with one rounding per operation. It starts at a multiple of `CHUNK`."""
        start, stop, _ = part.indices(len(self._expert))
        change = self._expert[start:stop].astype(np.float32)
        if self._base is not None:
            change -= self._base[start:stop].astype(np.float32)
        for at in range(start, stop, CHUNK):
            piece = change[at - start : at - start + CHUNK]
            piece *= mask_chunk(self._vector, self._tensor, at // CHUNK, len(piece))
        return change
