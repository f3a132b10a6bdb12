"""The coordinator with 256 scorers and 1000 particles: does its work per generation stay below a second, and flat?

No machine here holds 256 engines, so there are four parts:

- queue: the real queue on a clock of its own, with scorers whose slices vary in length as measured ones do;
- calls: real calls of Ray to 256 scorers and 1000 particles, for which threads of a few actors stand. They sleep;
- metrics: of as many actors in Ray's table. They wait for a resource that no node has, so they have no processes;
- loop: search, records, checkpoint and metrics, with 1000 experts.

    python -m benchmarks.scale --generations 20
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import ray

from benchmarks.common import close, show
from benchmarks.coordinator import generations_of
from benchmarks.scaling import measured
from benchmarks.scoring import alone
from benchmarks.takeover import Flat, play
from evoswarm.backend.base import Counters, Job
from evoswarm.backend.pace import Pace
from evoswarm.backend.pieces import Done
from evoswarm.backend.ray.calls import Calls
from evoswarm.backend.ray.wait import finished
from evoswarm.backend.round import Round
from evoswarm.callbacks import Callbacks
from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected
from evoswarm.launch.metrics import Metrics
from evoswarm.rows import ExpertVector, Row
from evoswarm.utility import Outcome

PARTICLES, SCORERS, EXAMPLES, GOAL_SECONDS = 1000, 256, 200, 1.0
SLICES = {"vLLM": 1, "transformers": 7}
"""Calls for a particle with 200 examples: vLLM takes all examples in one, transformers 32 at a time."""
INSTALL = 0.1
"""An install takes a tenth of a slice."""
ACTORS, SECONDS = 4, 10.0
"""Actors that stand for all scorers and particles, and seconds that a particle takes."""


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=20)
    count = parser.parse_args().generations
    spread = alone(measured)
    rows = [queue(engine, spread, count) for engine in SLICES]
    with connected(RayBackend(address="local")):
        loop_row = loop(count)
        rows += [loop_row, metrics(count), *(calls(engine, max(2, count // 5)) for engine in SLICES)]
    show(f"{PARTICLES} particles, {SCORERS} scorers: seconds of one processor per generation", rows)
    close(
        "scale",
        ratio=round(loop_row["seconds"] / GOAL_SECONDS, 3),
        goal="at most 1: seconds of the loop between two generations; calls overlap with scoring",
        rows=rows,
    )


def row(part: str, seconds: list[float], before: int) -> dict[str, Any]:
    """Median seconds of all generations and of each half, and the growth of this process's memory."""
    first, second = (float(np.median(half)) for half in np.array_split(seconds, 2))
    grown = (psutil.Process().memory_info().rss - before) / 1e6
    whole = float(np.median(seconds))
    return {"part": part, "seconds": whole, "first half": first, "second half": second, "MB more": grown}


def jobs(generation: int) -> list[Job]:
    """A generation of particles, each a mix of 1000 experts."""
    terms = tuple((ExpertVector(f"expert-{i}"), 0.001 * (i + 1)) for i in range(PARTICLES))
    return [Job((generation, number), Row(terms), affinity=number) for number in range(PARTICLES)]


def new_round(generation: int, cut: list[tuple[int, ...]], pace: Pace) -> Round:
    """A generation's work."""
    return Round(jobs(generation), utility=Flat(), cut=lambda split: cut, workers=SCORERS, pace=pace)  # type: ignore[arg-type]


def queue(engine: str, spread: list[float], generations: int) -> dict[str, Any]:
    """The queue alone, on a simulated clock."""
    rng, pace, seconds = np.random.default_rng(0), Pace(), []
    cut = [(number,) for number in range(SLICES[engine])]
    before = psutil.Process().memory_info().rss
    for generation in range(generations):
        round, speeds = new_round(generation, cut, pace), rng.choice(spread, SCORERS)
        start = time.process_time()
        play(round, speeds.tolist(), install=INSTALL)
        seconds.append(time.process_time() - start)
    return row(f"queue, {engine}", seconds, before)


def loop(generations: int) -> dict[str, Any]:
    """Search, records, checkpoint, and what the metrics take from each event."""
    observer, before = Metrics("scale", generations=generations), psutil.Process().memory_info().rss
    seconds, _ = generations_of(PARTICLES, PARTICLES, generations, Callbacks(notify=observer.observe))
    observer.close()
    return row("loop", seconds, before)


def metrics(generations: int) -> dict[str, Any]:
    """One publication, which happens every five seconds."""
    names = [f"{kind}-{i}:metrics:" for kind, n in (("scorer", SCORERS), ("particle", PARTICLES)) for i in range(n)]
    actors = [Many.options(resources={"no-node-has-this": 1}, name=name).remote([]) for name in names]
    observer, seconds, before = Metrics("metrics", generations=generations), [], psutil.Process().memory_info().rss
    for generation in range(generations):
        utilities = {"validation": {str(number): 0.5 for number in range(PARTICLES)}}
        line = {
            "generation": generation,
            "best": 0.5,
            "median": 0.5,
            "utilities": utilities,
            "seconds": {"search": 0.1},
        }
        observer.observe({"kind": "generation", **line})
        start = time.process_time()
        observer.publish()
        seconds.append(time.process_time() - start)
    observer.close()
    for actor in actors:
        ray.kill(actor)
    return row("metrics", seconds, before)


@ray.remote(num_cpus=0, max_concurrency=2 * SCORERS)
class Many:
    """Stands for many scorers and particles."""

    def __init__(self, cut: list[tuple[int, ...]]) -> None:
        self._cut = cut

    def score(self, work: list[Any], *moved: Any) -> Done:
        """Take as long as a scorer."""
        time.sleep(SECONDS * len(work) / len(self._cut))
        return Done([[Outcome(1.0, "answer")] * len(self._cut[number]) for _, number in work])

    def move(self, row: Row) -> tuple[bytes, float]:
        """Weights of no size."""
        return b"", 0.0


def calls(engine: str, generations: int) -> dict[str, Any]:
    """Real calls of Ray."""
    cut = [tuple(part.tolist()) for part in np.array_split(np.arange(EXAMPLES), SLICES[engine])]
    actors = [Many.remote(cut) for _ in range(ACTORS)]

    def group(count: int) -> SimpleNamespace:
        handles = [actors[number % ACTORS] for number in range(count)]
        return SimpleNamespace(actors=handles, absent={}, up=range(count), nearest=lambda number: number % count)

    settings = SimpleNamespace(slice_timeout=1800.0)
    all_actors = SimpleNamespace(scorers=group(SCORERS), particles=group(PARTICLES), watch=finished, settings=settings)
    pace, seconds, before = Pace(), [], psutil.Process().memory_info().rss
    for generation in range(generations):
        round = new_round(generation, cut, pace)
        start, found = time.process_time(), Calls(all_actors, round, Counters())  # type: ignore[arg-type]
        while not round.finished:
            found.send()
            found.collect()
        seconds.append(time.process_time() - start)
    return row(f"calls, {engine}", seconds, before)


if __name__ == "__main__":
    main()
