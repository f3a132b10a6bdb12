"""Metrics of a run for Ray's dashboard and Prometheus. Part of the coordinator.

The loop's events and the backend's counts are stored as plain numbers. A thread publishes them to Ray every five
seconds, because Ray drops a gauge that is not set again.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

from evoswarm.backend.base import Counters
from evoswarm.backend.ray.private import actors_of_job
from evoswarm.callbacks import Event

PERIOD_SECONDS = 5.0
PREFIX = "evoswarm_"
GAUGES = {
    "generation": ("The last finished generation.", ()),
    "generations": ("The highest possible generation (search.max_generations).", ()),
    "best_utility": ("Utility of the global best on validation.", ()),
    "median_utility": ("Median utility of the population on validation.", ()),
    "particle_utility": ("Utility of each particle at its last evaluation.", ("particle",)),
    "actors_alive": ("Actors that are up.", ("kind",)),
    "actor_restarts": ("How often each actor was restarted.", ("actor",)),
    "queue_depth": ("Slices waiting for a scorer.", ()),
}
COUNTERS = {
    "evaluations": ("Evaluations: ok, failed, or known from an equal row.", ("outcome",)),
    "examples": ("Examples answered by an engine.", ()),
    "tokens": ("Tokens read and written by engines.", ("kind",)),
    "phase_seconds": ("Seconds by phase; scoring and moving are summed over workers.", ("phase",)),
    "moved_bytes": ("Bytes of weights moved from particles to scorers.", ()),
}
Series = tuple[str, tuple[str, ...]]
"""A metric and the values of its labels, without `run` and `job`."""


class Metrics:
    """The metrics of one run, with the labels `run` and `job`.

    Attributes:
        counters: of the backend, once it has started.
    """

    def __init__(self, run: str, *, generations: int) -> None:
        """
        Args:
            run: the run's name.
            generations: the highest possible generation.
        """
        self._job = ray.get_runtime_context().get_job_id()
        self._run = run
        self._tags = {"run": run, "job": self._job}
        self._now: dict[Series, float] = {("generations", ()): generations}
        self._total: dict[Series, float] = {}
        self._published: dict[Series, float] = {}
        self._fresh = 0
        self.counters = Counters()
        self._gauges = {name: Gauge(PREFIX + name, *_description(GAUGES[name])) for name in GAUGES}
        self._counters = {name: Counter(PREFIX + name, *_description(COUNTERS[name])) for name in COUNTERS}
        self._lock, self._end = threading.Lock(), threading.Event()
        threading.Thread(target=self._repeat, name="evoswarm-metrics", daemon=True).start()

    def observe(self, event: Event) -> None:
        """Update the numbers from an event of the loop."""
        with self._lock:
            if event["kind"] == "progress":
                self._evaluation(event)
            elif event["kind"] == "generation":
                self._generation(event)

    def close(self) -> None:
        """Publish the last numbers and end the thread."""
        self._end.set()
        self._publish()

    def _evaluation(self, event: Event) -> None:
        self._fresh += 1
        self._add("evaluations", 1, "failed" if event["failed"] else "ok")
        self._add("examples", event["examples"])

    def _generation(self, event: Event) -> None:
        self._now["generation", ()] = event["generation"]
        self._now["best_utility", ()] = event["best"]
        if event["median"] is not None:
            self._now["median_utility", ()] = event["median"]
        for utilities in event["utilities"].values():
            for particle, utility in utilities.items():
                if utility is not None:
                    self._now["particle_utility", (particle,)] = utility
        self._add("evaluations", sum(map(len, event["utilities"].values())) - self._fresh, "known")
        self._fresh = 0
        self._add("phase_seconds", event["seconds"]["search"], "search")

    def _add(self, name: str, amount: float, *labels: str) -> None:
        self._total[name, labels] = self._total.get((name, labels), 0.0) + amount

    def _repeat(self) -> None:
        while not self._end.is_set():
            try:
                self._publish()
            except Exception:  # metrics must never end a run
                logging.getLogger(__name__).warning("publishing metrics failed", exc_info=True)
            self._end.wait(PERIOD_SECONDS)

    def _publish(self) -> None:
        actors = self._actors()
        with self._lock:
            self._now |= actors
            self._now["queue_depth", ()] = self.counters.queued
            self._total["phase_seconds", ("scoring",)] = self.counters.scoring
            self._total["phase_seconds", ("moving",)] = self.counters.moving
            self._total["moved_bytes", ()] = self.counters.moved_bytes
            for kind, count in self.counters.tokens.items():
                self._total["tokens", (kind,)] = count
            for (name, labels), value in self._now.items():
                self._gauges[name].set(value, self._labels(GAUGES[name][1], labels))
            for series, total in self._total.items():
                name, labels = series
                if (new := total - self._published.get(series, 0.0)) > 0:
                    self._counters[name].inc(new, self._labels(COUNTERS[name][1], labels))
                    self._published[series] = total

    def _labels(self, keys: tuple[str, ...], values: tuple[str, ...]) -> dict[str, str]:
        return self._tags | dict(zip(keys, values, strict=True))

    def _actors(self) -> dict[Series, float]:
        """How many actors of each kind are up and how often each was restarted, according to the cluster."""
        alive: dict[Series, float] = {("actors_alive", (kind,)): 0 for kind in ("particle", "scorer", "coordinator")}
        restarts: dict[Series, float] = {}
        for entry in actors_of_job(self._job):
            name, _, rest = entry["Name"].partition(":")
            kind = name.partition("-")[0]
            if (
                rest.partition(":")[0] != self._run
                or ("actors_alive", (kind,)) not in alive
                or entry["State"] == "DEAD"
            ):
                continue
            alive["actors_alive", (kind,)] += entry["State"] == "ALIVE"
            restarts["actor_restarts", (name,)] = entry["NumRestarts"]
        return alive | restarts


def _description(metric: tuple[str, tuple[str, ...]]) -> tuple[Any, Any]:
    text, labels = metric
    return text, ("run", "job", *labels)
