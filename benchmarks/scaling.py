"""Utilization of many scorers: the real queue with threads as workers and engines that sleep.

Worker speeds range from 1x to 3x, and slice times vary like those of the toy world, which are measured first. The ideal
is the shortest possible time for slices of mean length on these workers: the smallest T with the sum over workers of
floor(T / seconds per slice) >= slices. Compared with it: the measured queue, and two calculated alternatives, a static
split of the particles and a barrier after each wave of particles.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np

from benchmarks.common import close, show
from benchmarks.scoring import alone
from benchmarks.takeover import Flat
from evoswarm.backend.base import Job
from evoswarm.backend.pace import Pace
from evoswarm.backend.pieces import Done, Piece
from evoswarm.backend.round import Call, Round
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import Outcome
from evoswarm.weights.pool import open_pool

CASES = [(40, 1), (40, 4), (40, 16), (40, 64), (1000, 256)]
SLICES, SPEEDS, SEED = 25, 3.0, 0
SECONDS = {1: 0.01, 4: 0.03, 16: 0.06, 64: 0.15, 256: 0.15}
"""Mean seconds per slice on the fastest worker: longer for more threads, because they share this machine's cores."""


def main() -> None:
    """Run all cases."""
    spread = alone(measured)
    lines = [line(particles, scorers, spread) for particles, scorers in CASES]
    show(f"{SLICES} slices per particle; efficiency = ideal time / measured time", lines)
    ratio = min(float(row["queue"]) for row in lines)
    close(
        "scaling", ratio=round(ratio, 3), goal="at least 0.95 of the ideal", spread=float(np.std(spread)), lines=lines
    )


def measured() -> list[float]:
    """Seconds of slices of eight toy examples, divided by their mean."""
    data = target_config("office", algorithm="model_swarms") | {"engine": {"type": "transformers", "batch_size": 8}}
    config = parse_config(data, root=world())
    worker = Worker(config, pool=open_pool(config.pool, model=config.model))
    seconds = [
        worker.work([Piece("base", None, "validation", number)]).scoring
        for _ in range(4)
        for number in range(len(worker.slices("validation").indices))
    ][SLICES:]
    return [second / float(np.mean(seconds)) for second in seconds]


def line(particles: int, scorers: int, spread: list[float]) -> dict[str, Any]:
    """One case."""
    rng = np.random.default_rng([SEED, particles, scorers])
    seconds = SECONDS[scorers] * np.geomspace(1, SPEEDS, scorers)
    rng.shuffle(seconds)
    noise = rng.choice(spread, (particles, SLICES))
    ideal = shortest(seconds, particles * SLICES)
    return {
        "particles": particles,
        "scorers": scorers,
        "ideal, s": ideal,
        "queue": ideal / run(particles, seconds, noise),
        "static split": ideal / static(seconds, noise),
        "barrier per wave": ideal / waves(seconds, noise),
    }


def shortest(seconds: np.ndarray, slices: int) -> float:
    """The smallest T with sum floor(T / seconds) >= slices."""
    ends = np.sort(np.concatenate([s * np.arange(1, slices + 1) for s in seconds]))
    return float(ends[slices - 1])


def run(particles: int, seconds: np.ndarray, noise: np.ndarray) -> float:
    """Measured seconds of a generation with the real round, which does not know the workers' speeds in advance."""
    cut = [(i,) for i in range(SLICES)]
    back: queue.Queue[tuple[Call, Done]] = queue.Queue()
    inboxes: list[queue.Queue[Call | None]] = [queue.Queue() for _ in seconds]
    threads = [
        threading.Thread(target=work, args=(i, seconds[i], noise, inboxes[i], back)) for i in range(len(seconds))
    ]
    for thread in threads:
        thread.start()
    jobs = [Job(i, None) for i in range(particles)]
    round = Round(jobs, utility=Flat(), cut=lambda split: cut, workers=len(seconds), pace=Pace())  # type: ignore[arg-type]
    start = time.perf_counter()
    while not round.finished:
        for call in round.assign(now=time.perf_counter()):
            inboxes[call.worker].put(call)
        call, done = back.get()
        round.done(call, done, now=time.perf_counter())
    taken = time.perf_counter() - start
    for inbox in inboxes:
        inbox.put(None)
    for thread in threads:
        thread.join()
    return taken


def work(number: int, seconds: float, noise: np.ndarray, inbox: Any, back: Any) -> None:
    """A scorer that sleeps."""
    until = time.perf_counter()
    while (call := inbox.get()) is not None:
        until = max(until, time.perf_counter()) + sum(seconds * noise[index, piece] for index, piece in call.work)
        time.sleep(max(0.0, until - time.perf_counter()))
        back.put((call, Done([[Outcome(1.0, None)] for _ in call.work])))


def static(seconds: np.ndarray, noise: np.ndarray) -> float:
    """Seconds if each worker gets an equal share of the particles."""
    shares = np.array_split(np.arange(len(noise)), len(seconds))
    return max(float(s * noise[share].sum()) for s, share in zip(seconds, shares, strict=True))


def waves(seconds: np.ndarray, noise: np.ndarray) -> float:
    """Seconds if particles are scored in waves of one per worker, with a barrier after each wave."""
    size = len(seconds)
    parts = (noise[start : start + size].sum(axis=1) for start in range(0, len(noise), size))
    return float(sum((seconds[: len(part)] * part).max() for part in parts))


if __name__ == "__main__":
    main()
