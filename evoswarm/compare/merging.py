"""Merges that are not linear in the experts, tensor by tensor, on the saved tensors.

For an adapter these are A and B, as in every search here; for a checkpoint they are the differences from the base
model. peft's `merge_utils` do the arithmetic of TIES and DARE.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.device import to_torch
from evoswarm.weights.expert import open_expert
from evoswarm.weights.materialize import Weights
from evoswarm.weights.pool import Pool
from evoswarm.weights.save import write_expert

Combine = Callable[..., torch.Tensor]
"""From a tensor's name, the experts' task tensors (fp32, differences from the base model) and parameters by keyword to
the merged tensor."""


def merge(pool: Pool, experts: Sequence[str], base: Weights | None, combine: Combine) -> Weights:
    """Merge some experts, tensor by tensor. `base` is the base checkpoint; None for adapters, whose base is zero."""
    merged: Weights = {}
    for spec in pool.layout:
        flats = [pool.flat(name, spec.name) for name in experts]
        if not spec.is_float:
            merged[spec.name] = flats[0].reshape(spec.shape).copy()
            continue
        start = None if base is None else to_torch(base[spec.name]).float().reshape(spec.shape)
        tensors = [to_torch(flat).float().reshape(spec.shape) for flat in flats]
        result = combine(spec.name, [tensor if start is None else tensor - start for tensor in tensors])
        result = result if start is None else result + start
        merged[spec.name] = result.numpy().astype(spec.numpy_dtype)
    return merged


def summed(name: str, tasks: list[torch.Tensor], *, factor: float) -> torch.Tensor:
    """Task arithmetic (arXiv 2212.04089): the sum of all task tensors, times a factor."""
    return factor * sum(tasks[1:], tasks[0])


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


def base_weights(pool: Pool, model: Path) -> Weights | None:
    """The pool's tensors in the base model; None for adapters, whose base is zero."""
    if pool.kind == "adapter":
        return None
    base = open_expert(model)
    return {spec.name: base.tensor(spec.name) for spec in pool.layout}


def save_member(pool: Pool, weights: Weights, folder: Path, *, base: str, lineage: dict[str, Any]) -> None:
    """Save merged weights as an expert of the pool's kind, with `lineage.json`: how it was made, and from what."""
    write_expert(pool, lambda specs: ((spec.name, weights[spec.name]) for spec in specs), folder, base=base)
    RunDirectory(folder).write_json("lineage.json", lineage | {"base": base, "pool": pool.hashes})
