"""The driver: connects to Ray, starts the coordinator and forwards its events."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evoswarm.backend.ray.actor_group import result_of
from evoswarm.backend.ray.private import log_folder, submission_id
from evoswarm.backend.ray.wait import finished
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected
from evoswarm.launch.coordinator import Coordinator
from evoswarm.launch.status import FILE, StatusWriter, job_file
from evoswarm.loop.inputs import read_inputs

POLL_SECONDS = 0.2


def run_on_ray(config: RunConfig, *, resume: str, callbacks: Callbacks) -> dict[str, Any]:
    """See `evoswarm.run`."""
    assert isinstance(config.backend, RayBackend)
    # Find mistakes before a local cluster starts. The files of a remote cluster may not be on this machine, and the
    # coordinator's errors are part of a job's status.
    here = config.backend.address is None or (config.place.url is None and config.place.path.parent.exists())
    checked = here and submission_id() is None
    if checked:
        read_inputs(config)
    with (
        connected(config.backend, callbacks.message),
        _job_status(config, callbacks) as callbacks,
        _coordinator(config, resume=resume, check=not checked) as coordinator,
    ):
        return _follow(coordinator, callbacks)


def _job_status(config: RunConfig, callbacks: Callbacks) -> AbstractContextManager[Callbacks]:
    """If this driver is a job of the cluster: its status file among the node's logs, which the dashboard serves."""
    job, folder = submission_id(), log_folder()
    if job is None or folder is None:
        return contextlib.nullcontext(callbacks)
    path = folder / job_file(job)
    last = config.search.max_generations
    return StatusWriter(path, generations=last, callbacks=callbacks, start=config.run_dir / FILE)


@contextlib.contextmanager
def _coordinator(config: RunConfig, *, resume: str, check: bool) -> Iterator[Any]:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    coordinator = ray.remote(Coordinator).options(
        num_cpus=0,
        scheduling_strategy=here,  # other nodes may leave without ending the run
        name=f"coordinator:{config.name}:{os.getpid()}-{time.time_ns()}",
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=4,
    )
    actor = coordinator.remote(config, resume=resume, check=check, driver=os.getpid())
    try:
        yield actor
    finally:
        ray.kill(actor)


def _follow(coordinator: Any, callbacks: Callbacks) -> dict[str, Any]:
    """Forward events until the run ends."""
    result = coordinator.run.remote()
    new_events = coordinator.events.options(enable_task_events=False)  # Ray would keep a record of every call
    asked = None
    while True:
        done = finished([result], seconds=POLL_SECONDS)
        asked = asked or new_events.remote()  # the answer takes long while the coordinator restarts
        if finished([asked], seconds=POLL_SECONDS):
            with contextlib.suppress(RayError):  # `result` has the reason
                for event in ray.get(asked):
                    callbacks.notify(event)
            asked = None
        if done:
            summary: dict[str, Any] = result_of(result, who="the coordinator")
            return summary
        if callbacks.stop():
            coordinator.stop.remote()
