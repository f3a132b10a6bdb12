"""The driver: connects to Ray, starts the coordinator, passes its events on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evoswarm.config import RunConfig
from evoswarm.config.run import RayBackend
from evoswarm.errors import ClusterError
from evoswarm.launch.connect import connected
from evoswarm.launch.coordinator import Coordinator
from evoswarm.loop.evolution import Hooks
from evoswarm.loop.inputs import read_inputs

POLL_SECONDS = 0.2


def run_on_ray(config: RunConfig, *, resume: str, hooks: Hooks) -> dict[str, Any]:
    """See `evoswarm.run`."""
    assert isinstance(config.backend, RayBackend)
    # On the user's own machine a mistake shows before a cluster is started; elsewhere the files may not be here.
    local = config.backend.address is None or (config.run_url is None and config.run_dir.parent.exists())
    if local:
        read_inputs(config)
    with connected(config.backend, hooks.message), _coordinator(config, resume=resume, check=not local) as coordinator:
        return _follow(coordinator, hooks)


@contextlib.contextmanager
def _coordinator(config: RunConfig, *, resume: str, check: bool) -> Iterator[Any]:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options: dict[str, Any] = {
        "scheduling_strategy": here,  # where other nodes may leave without it
        "name": f"coordinator:{config.name}:{os.getpid()}-{time.time_ns()}",
        "num_cpus": 0,
        "num_gpus": 0,
        "max_restarts": -1,
        "max_task_retries": -1,
        "max_concurrency": 4,
    }
    if ray.cluster_resources().get("GPU"):
        options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
    actor = ray.remote(Coordinator).options(**options).remote(config, resume=resume, check=check, driver=os.getpid())
    try:
        yield actor
    finally:
        ray.kill(actor)


def _follow(coordinator: Any, hooks: Hooks) -> dict[str, Any]:
    """Pass events on until the run has ended."""
    result = coordinator.run.remote()
    events = _Events(coordinator)
    while True:
        done, _ = ray.wait([result], timeout=POLL_SECONDS)
        for event in events.new():
            hooks.notify(event)
        if done:
            return _result(result)
        if hooks.stop():
            coordinator.stop.remote()


class _Events:
    """The coordinator's events, each once; after a restart of the coordinator its list begins anew."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator, self._process, self._seen = coordinator, 0, 0
        self._asked: Any = None

    def new(self) -> list[dict[str, Any]]:
        """What has come since the last call; does not wait for a coordinator that is being started again."""
        if not self._asked:
            events = self._coordinator.events.options(
                enable_task_events=False
            )  # Ray keeps a record of every other call
            self._asked = events.remote(self._seen, self._process)
        done, _ = ray.wait([self._asked], timeout=POLL_SECONDS)
        if not done:
            return []
        asked, self._asked = self._asked, None
        try:
            process, events = ray.get(asked)
        except RayError:
            return []
        if process != self._process:
            restarted, self._process, self._seen = self._seen > 0, process, 0
            return self.new() if restarted else self._count(events)
        return self._count(events)

    def _count(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._seen += len(events)
        return events


def _result(ref: Any) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = ray.get(ref)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ClusterError(f"the coordinator was lost ({type(error).__name__}); resume with --resume auto") from None
    return summary
