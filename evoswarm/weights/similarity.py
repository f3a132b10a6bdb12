"""Similarity of the experts in a pool."""

from __future__ import annotations

import numpy as np

from evoswarm.weights.noise import CHUNK
from evoswarm.weights.pool import Pool

_STEP = 16 * CHUNK


def cosines(pool: Pool) -> np.ndarray:
    """Pairwise cosine [n, n] of the flattened experts that have files; one pass over the pool, fp64 sums."""
    gram = np.zeros((len(pool.experts), len(pool.experts)))
    for spec in pool.layout:
        if not spec.is_float:
            continue
        flats = [expert.flat(spec.name) for expert in pool.experts]
        for start in range(0, spec.numel, _STEP):
            block = np.stack([flat[start : start + _STEP].astype(np.float64) for flat in flats])
            gram += block @ block.T
    norms = np.sqrt(np.diag(gram))
    return gram / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)


def effective_number(cosine: np.ndarray) -> float:
    """The effective number of experts: n if all are orthogonal, 1 if all are identical.

    Source: the Vendi score (arXiv 2210.02410), exp of the entropy of the eigenvalues of cosine / n.
    """
    values = np.clip(np.linalg.eigvalsh(cosine / len(cosine)), 0, None)
    values = values[values > 0] / values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))
