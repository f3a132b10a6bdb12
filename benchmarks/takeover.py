"""How much the scheduler gains from counting the seconds of an install when it distributes the end of a round.

A simulated generation on a clock of its own, with the real queue: the same workers once report how long they installed,
and once do not, so that the scheduler takes an install for a part of a slice.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import close, show
from evoswarm.backend.base import Job
from evoswarm.backend.pace import Pace
from evoswarm.backend.pieces import Done
from evoswarm.backend.round import Round
from evoswarm.utility import Outcome

SLICES, GENERATIONS, SPEEDS = 25, 5, 2.0
CASES = [(10, 4), (10, 8), (40, 16), (40, 64)]
INSTALLS = (0.0, 1.0, 5.0, 20.0)
"""Seconds of an install, where a slice takes one on the fastest worker."""


class Flat:
    """The part of a utility that a round needs."""

    def aggregate(self, split: str, scores: Any) -> float:
        """The mean."""
        return float(np.mean(scores))


def main() -> None:
    """Run all cases with and without the seconds of installs."""
    lines = []
    for (particles, scorers), install in itertools.product(CASES, INSTALLS):
        seconds = np.geomspace(1, SPEEDS, scorers).tolist()
        counted, uncounted = (generations(particles, seconds, install, report=report) for report in (True, False))
        lines.append(
            {"particles": particles, "scorers": scorers, "install, slices": install, "counted, s": counted}
            | {"not counted, s": uncounted, "gain": uncounted / counted}
        )
    show(f"mean of {GENERATIONS} generations of {SLICES} slices per particle", lines)
    slow = [line["gain"] for line in lines if line["install, slices"] == INSTALLS[-1]]
    close("takeover", ratio=round(min(slow), 3), goal="above 1 where installs are slow", lines=lines)


def generations(particles: int, seconds: Sequence[float], install: float, *, report: bool) -> float:
    """Mean seconds of a generation."""
    pace, cut = Pace(), [(i,) for i in range(SLICES)]
    times = []
    for generation in range(GENERATIONS):
        jobs = [Job((generation, i), None) for i in range(particles)]
        round = Round(jobs, utility=Flat(), cut=lambda split: cut, workers=len(seconds), pace=pace)  # type: ignore[arg-type]
        times.append(play(round, seconds, install=install, report=report)[0])
    return float(np.mean(times))


def play(
    round: Round, seconds: Sequence[float], *, install: float = 0.0, report: bool = True
) -> tuple[float, list[int], int]:
    """Run a round on simulated workers.

    Args:
        round: the round.
        seconds: of a slice, for each worker.
        install: seconds to install a particle.
        report: whether the workers say how long they installed.

    Returns:
        When it ended, how many slices each worker did, and the number of installs.
    """
    now, queue, order = 0.0, [], itertools.count()
    busy_until, done, installed = [0.0] * len(seconds), [0] * len(seconds), [-1] * len(seconds)
    installs = 0
    while not round.finished:
        for call in round.assign(now=now):
            new = {index for index, _ in call.work} - {installed[call.worker]}
            installed[call.worker] = call.work[-1][0]
            installs += len(new)
            start = max(now, busy_until[call.worker])
            installing = install * len(new)
            busy_until[call.worker] = start + installing + len(call.work) * seconds[call.worker]
            heapq.heappush(queue, (busy_until[call.worker], next(order), call, installing))
        now, _, call, installing = heapq.heappop(queue)
        done[call.worker] += len(call.work)
        results = Done([[Outcome(1.0, "x")] for _ in call.work], installing=installing if report else 0.0)
        round.done(call, results, now=now)
    return now, done, installs


if __name__ == "__main__":
    main()
