"""Measures engine settings on the cluster, each in a process of its own with the resources of a scorer."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from evoswarm.backend.ray.placement import for_actors, place_engine
from evoswarm.backend.ray.scheduling import Scheduling, process_options
from evoswarm.backend.ray.wait import TaskFailed, nodes, resources_for, results
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend
from evoswarm.errors import ClusterError
from evoswarm.weights.pool import open_pool


def measure_on_cluster(configs: Sequence[RunConfig], callbacks: Callbacks) -> list[float]:
    """`seconds_per_particle` of each config.

    Raises:
        UserError: the cluster does not have the resources within `wait_seconds`.
        ClusterError: a process was lost.
        Stopped: the callbacks asked to stop.
    """
    backend = configs[0].backend
    assert isinstance(backend, RayBackend)
    alone = backend.with_(colocate=False, gang=False)
    placement = place_engine(configs[0], alone, nodes())
    scheduling = Scheduling(alone, placement)
    resources = resources_for(placement, backend, callbacks)
    options = process_options(
        cpus=placement.cpus * placement.ranks,
        gpus=placement.scorer_gpus,
        run_gpus=placement.gpus,
        max_retries=backend.max_retries,
    )
    found = {}
    try:
        tasks = {}
        for number, config in enumerate(configs):
            task = ray.remote(max_calls=1)(_seconds).options(**options | scheduling.of_scorer(0))  # frees the GPU
            tasks[task.remote(config.with_(engine=for_actors(config.engine, placement)))] = number
        for number, value in results(tasks, callbacks, resources=resources):
            if isinstance(value, TaskFailed):
                raise ClusterError(f"an engine could not be measured ({value.error}); rerun the command to resume")
            found[number] = value
    finally:
        scheduling.close()
    return [found[number] for number in range(len(configs))]


def _seconds(config: RunConfig) -> float:
    from evoswarm.backend.measure import seconds_per_particle

    return seconds_per_particle(config, pool=open_pool(config.pool, model=config.model, check=False))
