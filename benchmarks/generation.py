"""Whole generations on Ray after warm-up: 10 and 40 particles x 200 examples of toy targets, real model, all CPUs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

import evoswarm
from benchmarks.common import close, show
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.toy.config import target_config

RUNS = (("office", 10), ("people", 10), ("office", 40))
GENERATIONS, EXAMPLES, LIMIT, SHARE = 5, 200, 3.0, 0.1


def main() -> None:
    """Run a few generations of each case; the first one is warm-up and does not count."""
    scorers = os.cpu_count() or 1
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for target, particles in RUNS:
            data = apply_overrides(
                target_config(target, algorithm="model_swarms"),
                [
                    f"search.population={particles}",
                    f"search.max_generations={GENERATIONS}",
                    # Examples that need not be scored would make the figures depend on the search.
                    f"backend={{type: ray, scorers: {scorers}}}",
                    f"output={folder}",
                    f"name={target}-{particles}",
                ],
            )
            seconds: list[dict[str, float]] = []
            evoswarm.run(
                parse_config(data, root=Path(folder)), on_generation=lambda e, s=seconds: s.append(e["seconds"])
            )
            total, scoring, moving = (
                float(np.median([line[key] for line in seconds[1:]])) for key in ("total", "scoring", "moving")
            )
            lines.append(
                {
                    "target": target,
                    "particles": particles,
                    "seconds": total,
                    "examples/s": particles * EXAMPLES / total,
                    "moving": moving / scorers / total,
                    "outside": 1 - scoring / scorers / total,
                }
            )
    show(f"a generation on {scorers} scorers (median); shares of the wall time moving and outside the engine", lines)
    close(
        "generation",
        ratio=round(max(line["outside"] for line in lines if line["particles"] == 40), 3),
        goal=f"at most {SHARE} of the wall time outside the engine at 40 particles",
        slowest_of_10=max(line["seconds"] for line in lines if line["particles"] == 10),
        limit_of_10=LIMIT,
        lines=lines,
    )


if __name__ == "__main__":
    main()
