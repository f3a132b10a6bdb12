"""Seeded mutation noise, generated in chunks so that any part can be regenerated anywhere.

Source: GENOME (arXiv 2503.01155), mutation: x + m * e, m ~ Bernoulli(gene_rate), e ~ N(0, sigma^2).
"""

from __future__ import annotations

import hashlib

import numpy as np

from evoswarm.rows import NoiseVector

CHUNK = 16384
"""Scalars per chunk. Part of the definition of a noise vector; no other saved data depends on it."""


def noise_chunk(vector: NoiseVector, tensor: str, chunk: int, size: int) -> np.ndarray:
    """Scalars [size] of a noise vector in chunk number `chunk` of tensor `tensor`, fp32."""
    name = int.from_bytes(hashlib.sha256(tensor.encode()).digest()[:8], "little")
    key = [vector.seed, vector.generation, vector.particle, name, chunk]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    noise = np.zeros(size, np.float32)
    touched = rng.random(size, dtype=np.float32) < vector.gene_rate
    noise[touched] = rng.standard_normal(int(touched.sum()), dtype=np.float32) * np.float32(vector.sigma)
    return noise
