"""Similarity of the experts in a pool."""

from __future__ import annotations

import numpy as np

from evoswarm.weights.blocks import Block, Part
from evoswarm.weights.merge import LoraPair, lora_modules
from evoswarm.weights.noise import CHUNK
from evoswarm.weights.pool import Pool

_STEP = 16 * CHUNK


def cosines(pool: Pool) -> np.ndarray:
    """Pairwise cosine [n, n] of what the experts that have files change, in the pool's space; fp64 sums.

    These are the flattened A and B in the space of factors, the flattened products B A in product space, and the
    differences of whole tensors from the base model (the tensors themselves if it is not here).
    """
    gram = np.zeros((len(pool.experts), len(pool.experts)))
    pairs = lora_modules({part.name: part for part in pool.parts}) if pool.in_product else {}
    for pair in pairs.values():
        gram += _of_products(pool, pair)
    in_pairs = {part.name for pair in pairs.values() for part in (pair.a, pair.b)}
    for part in pool.parts:
        if part.name not in in_pairs and not part.blocks[0].fixed:
            gram += _of_block(pool, part.blocks[0])
    norms = np.sqrt(np.diag(gram))
    return gram / np.maximum(np.outer(norms, norms), np.finfo(float).tiny)


def _of_block(pool: Pool, block: Block) -> np.ndarray:
    """Inner products [n, n] of a tensor that is one block."""
    base = pool.base.flat(block.base) if block.base is not None and pool.base.is_here else None
    gram = np.zeros((len(pool.experts), len(pool.experts)))
    for start in range(0, block.spec.numel, _STEP):
        part = slice(start, start + _STEP)
        origin = 0.0 if base is None else base[part].astype(np.float64)
        zero = np.zeros(min(_STEP, block.spec.numel - start))
        lines = [
            block.scales.get(name, 1.0) * (pool.flat(name, source)[part].astype(np.float64) - origin)
            if (source := block.sources.get(name := expert.name))
            else zero
            for expert in pool.experts
        ]
        stack = np.stack(lines)
        gram += stack @ stack.T
    return gram


def _of_products(pool: Pool, pair: LoraPair[Part]) -> np.ndarray:
    """Inner products [n, n] of a module's products, <B A, B' A'> = sum of (B^T B') * (A A'^T); 0 without the module."""
    gram, number = np.zeros((len(pool.experts), len(pool.experts))), {e.name: i for i, e in enumerate(pool.experts)}
    names = [number[block.owner or ""] for block in pair.a.blocks]
    ranks = [np.full(block.spec.shape[0], i) for i, block in enumerate(pair.a.blocks)]
    a = np.concatenate([_values(pool, block) for block in pair.a.blocks])
    b = np.concatenate([_values(pool, block) for block in pair.b.blocks], axis=1)
    products, of = (b.T @ b) * (a @ a.T), np.eye(len(names))[np.concatenate(ranks)]
    gram[np.ix_(names, names)] = of.T @ products @ of
    return gram


def _values(pool: Pool, block: Block) -> np.ndarray:
    """A block of one expert in fp64; B with the expert's scale."""
    ((name, source),) = block.sources.items()
    values = pool.flat(name, source).astype(np.float64).reshape(block.spec.shape)
    return values if block.fixed else block.scales[name] * values


def effective_number(cosine: np.ndarray) -> float:
    """The effective number of experts: n if all are orthogonal, 1 if all are identical.

    Source: the Vendi score (arXiv 2210.02410), exp of the entropy of the eigenvalues of cosine / n.
    """
    values = np.clip(np.linalg.eigvalsh(cosine / len(cosine)), 0, None)
    values = values[values > 0] / values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))
