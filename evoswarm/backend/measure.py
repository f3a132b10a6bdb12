"""How long an engine takes for one particle, measured with the run's own prompts and experts."""

from __future__ import annotations

import math
from itertools import cycle, islice

from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.engine import EngineDied
from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, Row
from evoswarm.utility import Utility
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool

PARTICLES = 8
"""Particles that are measured."""


def seconds_per_particle(config: RunConfig, *, pool: Pool, utility: Utility | None = None) -> float:
    """Seconds to install a particle and score the validation split; infinite if the engine cannot do it this way.

    Measures a slice of medium length for the first experts of the pool, after a round that warms the engine up.
    """
    try:
        worker = Worker(config, pool=pool, utility=utility)
    except UserError:
        return math.inf
    try:
        falls_back = worker.mode != config.engine.mode
        return math.inf if falls_back else _seconds(worker, pool, threads=config.engine.cpus)
    except (UserError, EngineDied):
        return math.inf
    finally:
        worker.close()


def _seconds(worker: Worker, pool: Pool, *, threads: int) -> float:
    materializer = Materializer(pool, threads=threads)
    rows = [Row.one(name) for name in pool.names[:PARTICLES]]
    if pool.in_product:  # a particle of a search uses all experts, so it has the sum of their ranks
        rows = [Row(tuple((ExpertVector(name), 1 / len(pool.names)) for name in pool.names))]
    experts = [materializer.one(row) for row in rows]
    slices = worker.slices("validation")
    number = len(slices.indices) // 2
    for turn in range(2):
        particles = enumerate(islice(cycle(experts), PARTICLES))
        done = worker.ask([Piece((turn, i), weights, "validation", number) for i, weights in particles])
    if any(isinstance(result, str) for result in done.results):
        return math.inf
    share = len(slices.requests) / len(slices.indices[number])
    return (done.installing + share * done.scoring) / PARTICLES
