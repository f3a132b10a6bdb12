"""How much slow scoring adds to a generation where the engine is the bottleneck: with graders, and without.

The same run on one local Ray cluster and in one process, in turn: with scoring that takes no time, with slow scoring
in a grader, and with slow scoring next to the engine. Engine and scoring sleep, so that they share no processor.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import evoswarm
from benchmarks.common import close, make_lora_pool, show
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.records import read_timings

EXPERTS, PARTICLES, GENERATIONS, TURNS = 4, 6, 3, 2
EXAMPLES, SLICE = 120, 20
ENGINE, SCORING = 0.2, 0.16
"""Seconds of a slice."""
WAYS = {"no time": ("slow", 0.0), "in a grader": ("slow_graded", SCORING), "next to the engine": ("slow", SCORING)}
BACKENDS = {"Ray": {"type": "ray", "scorers": 1}, "local": {"type": "local"}}


def main() -> None:
    """Run all ways in turn on both backends."""
    import benchmarks.slow_utility  # noqa: F401  registers its types, which a test of this module must not

    seconds: dict[tuple[str, str], list[float]] = {(b, way): [] for b in BACKENDS for way in WAYS}
    results = set()
    with tempfile.TemporaryDirectory() as folder, connected(RayBackend(address="local")):
        make_lora_pool(Path(folder) / "experts", experts=EXPERTS, parameters=10_000, shift=0.5)
        for turn in range(TURNS):
            for backend, way in seconds:
                config = _config(Path(folder), backend, way, turn)
                evoswarm.run(config)
                directory = RunDirectory(config.run_dir)
                results.add(directory.generations.read_bytes())
                lines = [line for line in read_timings(directory) if line["generation"] > 0 and "phase" not in line]
                seconds[backend, way] += [line["seconds"]["total"] for line in lines]
    assert len(results) == 1, "where scoring runs has changed a result"
    median = {key: float(np.median(values)) for key, values in seconds.items()}
    lines = [
        {"backend": backend, "scoring": way, "s per generation": value, "ratio": value / median[backend, "no time"]}
        for (backend, way), value in median.items()
    ]
    show(f"{PARTICLES} particles x {EXAMPLES // SLICE} slices of {ENGINE} s, scoring {SCORING} s", lines)
    ratio = max(line["ratio"] for line in lines if line["scoring"] == "in a grader")  # type: ignore[type-var]
    close("graders", ratio=round(ratio, 3), goal="at most 1.1 with a grader", lines=lines)  # type: ignore[call-overload]


def _config(folder: Path, backend: str, way: str, turn: int) -> RunConfig:
    examples = [{"id": i, "question": f"say w{i}", "answer": f"w{i}"} for i in range(EXAMPLES)]
    (folder / "d.json").write_text(json.dumps({"dev": examples}))
    kind, seconds = WAYS[way]
    data: dict[str, Any] = {
        "name": f"{backend}-{way.replace(' ', '-')}-{turn}",
        "model": "no-base",
        "pool": {"experts": "experts", "space": "factors"},
        "search": {"type": "model_swarms", "population": PARTICLES, "max_generations": GENERATIONS},
        "utility": {"type": kind, "data": {"path": "d.json", "test": None}, "seconds": seconds / SLICE},
        "engine": {"type": "fake", "batch_size": SLICE, "delay": ENGINE},
        "backend": BACKENDS[backend],
        "references": False,
    }
    return parse_config(data, root=folder)


if __name__ == "__main__":
    main()
