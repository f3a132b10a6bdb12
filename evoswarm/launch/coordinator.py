"""The coordinator actor: search, checkpoints and events. Holds no weights and sees no GPU."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import ray

from evoswarm.backend.ray.backend import RayBackend
from evoswarm.backend.ray.measure import measure_on_cluster
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.launch.execute import Execution
from evoswarm.launch.metrics import Metrics
from evoswarm.loop.inputs import Inputs
from evoswarm.place import RunPlace


class Coordinator:
    """Runs the loop in one thread and answers the driver in others.

    If its process is lost, Ray restarts it and repeats `run`, which resumes from the newest checkpoint.
    """

    def __init__(self, config: RunConfig, *, resume: str, check: bool, driver: int) -> None:
        """`check`: whether pool and data must still be checked; `driver`: process id of the driver."""
        context = ray.get_runtime_context()
        again, self._session = context.was_current_actor_reconstructed, context.get_actor_id()
        self._config, self._check, self._driver = config, check, driver
        self._resume = "auto" if again else resume
        self._events: deque[Event] = deque()
        self._stop = threading.Event()

    def run(self) -> dict[str, Any]:
        """Run to the end and return the summary; see `Execution`."""
        metrics = Metrics(self._config.name, generations=self._config.search.max_generations)

        def notify(event: Event) -> None:
            metrics.observe(event)
            self._events.append(event)

        callbacks = Callbacks(notify=notify, stop=self._stop.is_set)

        def make_backend(settled: RunConfig, place: RunPlace, inputs: Inputs) -> RayBackend:
            backend = RayBackend(settled, place, utility=inputs.utility, callbacks=callbacks)
            metrics.counters = backend.counters
            return backend

        def measure(configs: Sequence[RunConfig], inputs: Inputs) -> list[float]:
            return measure_on_cluster(configs, callbacks)

        try:
            return Execution(
                self._config, make_backend, measure, callbacks, self._resume, self._check, self._driver, self._session
            ).run()
        finally:
            metrics.close()

    def events(self) -> list[Event]:
        """The events since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def stop(self) -> None:
        """Stop at the next evaluation."""
        self._stop.set()

    def __repr__(self) -> str:
        return f"Coordinator({self._config.name})"
