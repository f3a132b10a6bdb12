"""The coordinator actor: search, checkpoints and events. Holds no weights and sees no GPU."""

from __future__ import annotations

import os
import threading
from typing import Any

import ray

from evoswarm.backend.ray.backend import RayBackend
from evoswarm.config import RunConfig
from evoswarm.launch.execute import execute
from evoswarm.launch.metrics import Metrics
from evoswarm.loop.callbacks import Callbacks, Event
from evoswarm.loop.inputs import Inputs
from evoswarm.place import RunPlace


class Coordinator:
    """Runs the loop in one thread and answers the driver in others.

    If its process is lost, Ray restarts it and repeats `run`, which resumes from the newest checkpoint.
    """

    def __init__(self, config: RunConfig, *, resume: str, check: bool, driver: int) -> None:
        """
        Args:
            config: the run.
            resume: "auto", "never" or "must".
            check: whether pool and data must still be checked.
            driver: process id of the driver.
        """
        context = ray.get_runtime_context()
        again, self._session = context.was_current_actor_reconstructed, context.get_actor_id()
        self._config, self._check, self._driver = config, check, driver
        self._resume = "auto" if again else resume
        self._events: list[Event] = []
        self._forgotten = 0
        self._stop = threading.Event()

    def run(self) -> dict[str, Any]:
        """Run to the end and return the summary; see `execute`."""
        metrics = Metrics(self._config.name, generations=self._config.search.max_generations)

        def notify(event: Event) -> None:
            metrics.observe(event)
            self._events.append(event)

        callbacks = Callbacks(notify=notify, stop=self._stop.is_set)

        def make_backend(settled: RunConfig, place: RunPlace, inputs: Inputs) -> RayBackend:
            backend = RayBackend(
                settled, place, utility=inputs.utility, message=callbacks.message, stop=self._stop.is_set
            )
            metrics.watch(backend.seconds, backend.traffic)
            return backend

        try:
            return execute(
                self._config,
                make_backend,
                resume=self._resume,
                callbacks=callbacks,
                check=self._check,
                driver=self._driver,
                session=self._session,
            )
        finally:
            metrics.close()

    def events(self, start: int, process: int) -> tuple[int, list[Event]]:
        """This process's id, and its events from number `start` on.

        Forgets earlier events if the caller has received them from this `process`.
        """
        if process == os.getpid() and start > self._forgotten:
            del self._events[: start - self._forgotten]
            self._forgotten = start
        return os.getpid(), list(self._events)

    def stop(self) -> None:
        """Stop at the next evaluation."""
        self._stop.set()

    def __repr__(self) -> str:
        return f"Coordinator({self._config.name})"
