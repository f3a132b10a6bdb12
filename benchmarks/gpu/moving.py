"""Part 2, moving: ten rank-64 adapters through particles on a GPU and through the CPU kernel, byte by byte the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.stage import EXPERTS, Stage
from evoswarm.rows import ExpertVector, NoiseVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.device import DeviceMaterializer
from evoswarm.weights.materialize import Materializer, Weights
from evoswarm.weights.pool import Pool, open_pool

RANK, PARTICLES = 64, 10


def measure(stage: Stage) -> dict[str, Any]:
    """GB/s of results, each particle moved alone as its actor does it."""
    pool = open_pool(PoolConfig(experts=stage.pool(RANK)), model=str(stage.base), check=False)
    values = np.random.default_rng(0).dirichlet(np.ones(EXPERTS), PARTICLES)
    rows = [Row.of([ExpertVector(name) for name in pool.names], line) for line in values]
    size = pool.experts[0].nbytes
    found: dict[str, Any] = {"GB of a particle": size / 1e9}
    expected: list[Weights] = []
    for threads in (1, os.cpu_count() or 1):
        expected = []
        seconds = moved(Materializer(pool, threads=threads), rows, expected.append)
        found[f"CPU, {threads} threads, GB/s"] = size / min(seconds) / 1e9
    particle, equal = DeviceMaterializer(pool, device=stage.device), list[bool]()
    seconds = moved(particle, rows, lambda weights: equal.append(same(weights, expected[len(equal)])))
    found |= {
        "first move, s": seconds[0],
        "later move, s": min(seconds[1:]),
        "GPU, GB/s": size / min(seconds[1:]) / 1e9,
        "same bytes": all(equal),
        "same bytes with noise": with_noise(pool, particle, rows[0]),
    }
    if torch.cuda.is_available():
        source = torch.empty(size, dtype=torch.uint8, device="cuda")
        target = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        target.copy_(source)
        start = time.perf_counter()
        target.copy_(source)
        found["copy to the host, GB/s"] = size / (time.perf_counter() - start) / 1e9
    return found


def moved(maker: Materializer, rows: list[Row], keep: Callable[[Weights], object]) -> list[float]:
    """Seconds of each move; `keep` is given each result, which is dropped before the next move."""
    seconds = []
    for row in rows:
        start = time.perf_counter()
        weights = maker.one(row)
        seconds.append(time.perf_counter() - start)
        keep(weights)
        del weights
    return seconds


def with_noise(pool: Pool, particle: DeviceMaterializer, row: Row) -> bool:
    """Whether a mutated particle is the same on both, in one tensor of each kind."""
    noisy = Row((*row.terms, (NoiseVector(seed=1, generation=2, particle=3, gene_rate=0.2, sigma=0.01), 1.0)))
    parts = pool.parts[:2]
    pairs = zip(Materializer(pool).stream([noisy], parts=parts), particle.stream([noisy], parts=parts), strict=True)
    return all(a.tobytes() == b.tobytes() for (_, (a,)), (_, (b,)) in pairs)


def same(one: Weights, other: Weights) -> bool:
    """Whether two particles have the same bytes."""
    return all(array.tobytes() == other[name].tobytes() for name, array in one.items())
