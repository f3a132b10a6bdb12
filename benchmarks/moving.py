"""Materializing 40 particles of 20M parameters from 10 experts, against a plain copy of the same bytes, and against
merging one particle at a time as published code does (load every expert, add it up, save)."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.common import close, make_lora_pool, show
from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.kernel import compiled
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

PARTICLES, EXPERTS, PARAMETERS, ROUNDS, ONE_BY_ONE = 40, 10, 20_000_000, 8, 2


def main() -> None:
    """Measure the three ways in turn, several rounds; the best round of each counts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_lora_pool(place / "experts", experts=EXPERTS, parameters=PARAMETERS)
        pool = open_pool(PoolConfig(experts=place / "experts"), model="none")
        rows = np.random.default_rng(0).standard_normal((PARTICLES, EXPERTS))
        rows /= rows.sum(axis=1, keepdims=True)
        compiled()
        materializer = Materializer(pool, threads=os.cpu_count() or 1)
        asked = [Row.of([ExpertVector(name) for name in pool.names], row) for row in rows]
        moving = _moving(materializer, asked)
        copying = _copying(pool.experts[0].specs.values())
        naive = _one_by_one(place, rows[:ONE_BY_ONE]) / ONE_BY_ONE * PARTICLES
    size = PARTICLES * sum(spec.nbytes for spec in pool.layout)
    seconds = {"materialize": min(moving), "plain copy": min(copying), "one by one": naive}
    show("moving", [{"way": k, "seconds": s, "GB/s": size / s / 1e9} for k, s in seconds.items()])
    close(
        "moving",
        ratio=round(min(copying) / min(moving), 3),
        goal="at least 0.6 of a plain copy of the same bytes, and 20 times faster than one by one",
        bytes=size,
        seconds=seconds,
        all_seconds={"materialize": moving, "plain copy": copying},
        times_faster_than_one_by_one=round(naive / min(moving), 1),
    )


def _moving(materializer: Materializer, rows: list[Row]) -> list[float]:
    """Seconds of each round; particles are resident: every round but the first writes into memory that is there."""
    seconds, resident = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        resident = materializer.all(rows, into=resident)
        seconds.append(time.perf_counter() - start)
    return seconds


def _copying(specs) -> list[float]:  # type: ignore[no-untyped-def]
    """The same for copies of one expert's bytes to every particle, by as many threads as materializing has."""
    sources = [np.ones(spec.shape, np.float32) for spec in specs]
    resident = [[np.empty_like(source) for source in sources] for _ in range(PARTICLES)]

    def copy(particle: list[np.ndarray]) -> None:
        for source, target in zip(sources, particle, strict=True):
            np.copyto(target, source)

    seconds = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            list(threads.map(copy, resident))
            seconds.append(time.perf_counter() - start)
    return seconds


def _one_by_one(place: Path, rows: np.ndarray) -> float:
    files = sorted((place / "experts").glob("*/adapter_model.safetensors"))
    start = time.perf_counter()
    for number, row in enumerate(rows):
        total: dict[str, np.ndarray] = {}
        for file, value in zip(files, row, strict=True):
            for name, tensor in load_file(file).items():
                total[name] = total.get(name, 0) + np.float32(value) * tensor
        save_file(total, place / f"particle-{number}.safetensors")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
