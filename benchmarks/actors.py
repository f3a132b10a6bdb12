"""Start 40 particle actors on a local Ray cluster: seconds until all are alive, and memory per actor."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psutil
import ray

from benchmarks.common import close, make_lora_pool, show
from evoswarm.backend.ray.particle import Particle
from evoswarm.config.load import parse_config
from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected

ACTORS, SECONDS, MEGABYTES = 40, 80.0, 300.0


@ray.remote(num_cpus=0)
class Measured(Particle):
    """A particle that also reports its process id."""

    def process(self) -> int:
        import os

        return os.getpid()


def main() -> None:
    """Start all actors and measure their memory."""
    with tempfile.TemporaryDirectory() as folder, connected(RayBackend(address="local")):
        make_lora_pool(Path(folder) / "experts", experts=4, parameters=100_000)
        utility = {"type": "exact_match", "data": "none.json"}
        config = parse_config({"model": "none", "pool": "experts", "utility": utility}, root=Path(folder))
        start = time.perf_counter()
        actors = [Measured.remote(config, number) for number in range(ACTORS)]
        processes = [psutil.Process(pid) for pid in ray.get([actor.process.remote() for actor in actors])]
        seconds = time.perf_counter() - start
        memory = [process.memory_full_info().uss / 1e6 for process in processes]
        resident = [process.memory_info().rss / 1e6 for process in processes]
    measured = {"seconds": seconds, "MB resident": max(resident), "MB unique": max(memory)}
    show(f"{ACTORS} particle actors", [measured])
    ratio = round(max(seconds / SECONDS, max(resident) / MEGABYTES), 3)
    goal = f"at most 1: {SECONDS:g} s for all actors, {MEGABYTES:g} MB resident per actor"
    close("actors", ratio=ratio, goal=goal, **measured)


if __name__ == "__main__":
    main()
