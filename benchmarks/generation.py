"""A warm generation on Ray: 10 particles x 200 examples of a toy target, real model, all CPUs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import evoswarm
from benchmarks.common import close, show
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS

GOAL, PARTICLES, GENERATIONS = 3.0, 10, 6


def main() -> None:
    """Run some generations of each target; the first one warms up and does not count."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            data = apply_overrides(
                target_config(target, algorithm="model_swarms"),
                [f"search.population={PARTICLES}", f"search.max_generations={GENERATIONS}", f"output={folder}"],
            )
            seconds: list[dict[str, float]] = []
            evoswarm.run(
                parse_config(data, root=Path(folder)), on_generation=lambda e, s=seconds: s.append(e["seconds"])
            )
            warm = {
                key: float(np.median([line[key] for line in seconds[1:]])) for key in ("total", "scoring", "moving")
            }
            lines.append({"target": target, **warm, "examples/s": PARTICLES * 200 / warm["total"]})
    show("seconds per generation (median; scoring and moving are sums over workers)", lines)
    ratio = round(max(line["total"] for line in lines) / GOAL, 3)
    close("generation", ratio=ratio, goal=f"at most 1: {GOAL:g} s per generation on the slowest target", targets=lines)


if __name__ == "__main__":
    main()
