"""The coordinator actor: search, checkpoints and events. Holds no weights and sees no GPU."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import ray

from evoswarm.backend.ray.backend import RayBackend
from evoswarm.backend.ray.measure import measure_on_cluster
from evoswarm.backend.ray.scheduling import hide_gpus
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.launch.cut_off import end_when_cut_off
from evoswarm.launch.execute import Execution
from evoswarm.launch.metrics import Metrics
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs
from evoswarm.loop.learned import LearnedFile
from evoswarm.place import RunPlace


class Coordinator:
    """Runs the loop in one thread and answers the driver in others.

    If its process is lost, Ray restarts it and repeats `run`, which resumes from the newest checkpoint. If its node is
    cut off, it ends itself, so that the new one gets the run directory.
    """

    def __init__(self, config: RunConfig, *, resume: str, check: bool, driver: int) -> None:
        """`check`: whether pool and data must still be checked; `driver`: process id of the driver."""
        hide_gpus()
        context = ray.get_runtime_context()
        end_when_cut_off(context.gcs_address)
        self._events: deque[Event] = deque()
        self._stop = threading.Event()
        self._metrics = Metrics(config.name, generations=config.search.max_generations)
        self._callbacks = Callbacks(self._notify, self._stop.is_set)
        if context.was_current_actor_reconstructed:
            self._callbacks.message("the coordinator was lost and has restarted")
            resume = "auto"
        session = context.get_actor_id()
        self._run = Execution(
            config, self._make_backend, self._measure, self._callbacks, resume, check, driver, session
        )

    def run(self) -> dict[str, Any]:
        """Run to the end and return the summary; see `Execution`."""
        try:
            return self._run.run()
        finally:
            self._metrics.close()

    def _notify(self, event: Event) -> None:
        self._metrics.observe(event)
        self._events.append(event)

    def _make_backend(self, config: RunConfig, place: RunPlace, inputs: Inputs, callbacks: Callbacks) -> RayBackend:
        learned = LearnedFile(RunDirectory(place.path).learned)
        backend = RayBackend(config, place, utility=inputs.utility, callbacks=callbacks, learned=learned)
        self._metrics.counters = backend.counters
        return backend

    def _measure(self, configs: Sequence[RunConfig], inputs: Inputs) -> list[float]:
        return measure_on_cluster(configs, self._callbacks)

    def events(self) -> list[Event]:
        """The events since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def stop(self) -> None:
        """Stop at the next evaluation."""
        self._stop.set()

    def __repr__(self) -> str:
        return f"Coordinator({self._run.config.name})"
