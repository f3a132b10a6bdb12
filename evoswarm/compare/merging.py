"""Merges that are not linear in the experts, tensor by tensor, on task tensors: differences from the base model.

In the space of factors the task tensors of a LoRA are its A and B; in product space they are the products s B A. The
merge of products is not a product of the same rank: it is returned as A and B of full rank, one of which is the
identity. peft's `merge_utils` do the arithmetic of TIES and DARE.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.blocks import Block, Part
from evoswarm.weights.device import to_torch
from evoswarm.weights.materialize import Weights
from evoswarm.weights.merge import LoraPair, lora_modules
from evoswarm.weights.pool import Pool
from evoswarm.weights.save import write_expert
from evoswarm.weights.tensorfile import DTYPES, TensorSpec

Combine = Callable[..., torch.Tensor]
"""From a tensor's name, the experts' task tensors (fp32, differences from the base model) and parameters by keyword to
the merged tensor."""


def merge(pool: Pool, experts: Sequence[str], combine: Combine) -> Weights:
    """Merge some experts, tensor by tensor."""
    pairs = lora_modules({part.name: part for part in pool.parts}) if pool.in_product else {}
    merged: Weights = {}
    for pair in pairs.values():
        merged |= _merge_products(pool, experts, pair, combine)
    for part in pool.parts:
        if part.name not in merged:
            merged[part.name] = _merge_block(pool, experts, part.blocks[0], combine)
    return merged


def _merge_block(pool: Pool, experts: Sequence[str], block: Block, combine: Combine) -> np.ndarray:
    """Merge a tensor that is one block; an expert without it does not change the base."""
    spec = block.spec
    if block.fixed:
        ((name, tensor),) = block.sources.items()
        return pool.flat(name, tensor).reshape(spec.shape).copy()
    base = torch.zeros(spec.shape) if block.base is None else _tensor(pool.base.flat(block.base), spec.shape)
    tasks = [
        block.scales.get(name, 1.0) * (_tensor(pool.flat(name, block.sources[name]), spec.shape) - base)
        if name in block.sources
        else torch.zeros(spec.shape)
        for name in experts
    ]
    return (combine(spec.name, tasks) + base).numpy().astype(spec.numpy_dtype)


def _merge_products(pool: Pool, experts: Sequence[str], pair: LoraPair[Part], combine: Combine) -> Weights:
    """Merge the products of a module, as A and B of its full rank."""
    products: dict[str, torch.Tensor] = {}
    for of_a, of_b in zip(pair.a.blocks, pair.b.blocks, strict=True):
        ((name, key_a), (_, key_b)) = (*of_a.sources.items(), *of_b.sources.items())
        a, b = _tensor(pool.flat(name, key_a), of_a.spec.shape), _tensor(pool.flat(name, key_b), of_b.spec.shape)
        products[name] = of_b.scales[name] * (b @ a)
    zero = torch.zeros_like(next(iter(products.values())))
    change = combine(pair.b.name, [products.get(name, zero) for name in experts])
    rows, columns = change.shape
    factors = (change, torch.eye(rows)) if rows <= columns else (torch.eye(columns), change)
    specs = pair.a.full, pair.b.full
    return {spec.name: factor.numpy().astype(spec.numpy_dtype) for spec, factor in zip(specs, factors, strict=True)}


def _tensor(flat: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    return to_torch(flat).float().reshape(shape)


def ties(name: str, tasks: list[torch.Tensor], *, density: float, scale: float) -> torch.Tensor:
    """TIES-Merging (arXiv 2306.01708): keep the largest `density`, elect signs, average those that agree, times scale.

    The largest values are chosen per tensor; the paper chooses them over the whole expert.
    """
    from peft.utils import merge_utils  # takes seconds

    return scale * merge_utils.ties(tasks, torch.ones(len(tasks)), density)


def dare_ties(name: str, tasks: list[torch.Tensor], *, density: float, scale: float, seed: int) -> torch.Tensor:
    """DARE (arXiv 2311.03099) before TIES: keep a random `density`, rescaled by 1 / density; then signs as in TIES."""
    from peft.utils import merge_utils

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big"))
        return scale * merge_utils.dare_ties(tasks, torch.ones(len(tasks)), density)


def slerp(name: str, tasks: list[torch.Tensor], *, t: float) -> torch.Tensor:
    """Spherical interpolation between two experts, t of the way to the second; linear if they are parallel.

    Source: Shoemake, Animating rotation with quaternion curves (1985).
    """
    first, second = tasks
    norms = float(first.norm()) * float(second.norm())
    cosine = float((first * second).sum()) / norms if norms else 1.0
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < 1e-6:
        return (1 - t) * first + t * second
    return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)


def model_stock(name: str, tasks: list[torch.Tensor]) -> torch.Tensor:
    """Model Stock (arXiv 2403.19522): the mean of the experts, moved toward the base model by how much they disagree.

    t = N cos / (1 + (N - 1) cos), where cos is the mean cosine between two task tensors, at least 0.
    """
    n = len(tasks)
    pairs = [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in combinations(tasks, 2)]
    cosine = max(0.0, float(torch.stack(pairs).mean()))
    return n * cosine / (1 + (n - 1) * cosine) * torch.stack(tasks).mean(dim=0)


def save_member(pool: Pool, weights: Weights, folder: Path, *, base: str, lineage: dict[str, Any]) -> None:
    """Save merged weights as an expert of the pool's kind, with `lineage.json`: how it was made, and from what."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    layout = [TensorSpec(name, array.shape, names[array.dtype]) for name, array in sorted(weights.items())]
    write_expert(pool, layout, lambda specs: ((spec.name, weights[spec.name]) for spec in specs), folder, base=base)
    RunDirectory(folder).write_json("lineage.json", lineage | {"base": base, "pool": pool.hashes})
