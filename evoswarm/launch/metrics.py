"""Metrics of a run for Ray's dashboard and Prometheus. Part of the coordinator.

The loop's events and the backend's counts are stored as plain numbers. A thread publishes them to Ray every five
seconds, because Ray drops a gauge that is not set again.
"""

from __future__ import annotations

import logging
import threading
from typing import TypeVar

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
    "phase_seconds": ("Seconds by phase; scoring, grading and moving are summed over workers.", ("phase",)),
    "moved_bytes": ("Bytes of weights moved from particles to scorers.", ()),
}
Series = tuple[str, tuple[str, ...]]
"""A metric and the values of its labels, without `run` and `job`."""
M = TypeVar("M", Gauge, Counter)


class Metrics:
    """The metrics of one run, with the labels `run` and `job`. Set `counters` once the backend has started."""

    def __init__(self, run: str, *, generations: int) -> None:
        self.counters = Counters()
        self._run, self._job = run, ray.get_runtime_context().get_job_id()
        self._gauges = {name: self._metric(Gauge, name, *GAUGES[name]) for name in GAUGES}
        self._counters = {name: self._metric(Counter, name, *COUNTERS[name]) for name in COUNTERS}
        self._now: dict[Series, float] = {("generations", ()): generations}
        self._published: dict[Series, float] = {}
        self._fresh = 0
        self._lock, self._end = threading.Lock(), threading.Event()
        threading.Thread(target=self._repeat, name="evoswarm-metrics", daemon=True).start()

    def _metric(self, kind: type[M], name: str, text: str, labels: tuple[str, ...]) -> M:
        metric = kind(PREFIX + name, text, ("run", "job", *labels))
        metric.set_default_tags({"run": self._run, "job": self._job})
        return metric

    def observe(self, event: Event) -> None:
        """Update the numbers from an event of the loop."""
        with self._lock:
            if event["kind"] == "progress":
                self._fresh += 1
                self._add("evaluations", 1, "failed" if event["failed"] else "ok")
                self._add("examples", event["examples"])
            elif event["kind"] == "generation":
                self._generation(event)

    def close(self) -> None:
        """Publish the last numbers and end the thread."""
        self._end.set()
        self.publish()

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
        if amount > 0:
            self._counters[name].inc(amount, dict(zip(COUNTERS[name][1], labels, strict=True)))

    def _repeat(self) -> None:
        while not self._end.is_set():
            try:
                self.publish()
            except Exception:  # metrics must never end a run
                logging.getLogger(__name__).warning("publishing metrics failed", exc_info=True)
            self._end.wait(PERIOD_SECONDS)

    def publish(self) -> None:
        """Give Ray all numbers."""
        actors, counters = self._actors(), self.counters
        totals: dict[Series, float] = {
            ("phase_seconds", ("scoring",)): counters.scoring,
            ("phase_seconds", ("grading",)): counters.grading,
            ("phase_seconds", ("moving",)): counters.moving,
            ("moved_bytes", ()): counters.moved_bytes,
            **{("tokens", (kind,)): count for kind, count in counters.tokens.items()},
        }
        with self._lock:
            self._now |= actors | {("queue_depth", ()): counters.queued}
            for (name, labels), value in self._now.items():
                self._gauges[name].set(value, dict(zip(GAUGES[name][1], labels, strict=True)))
            for (name, labels), total in totals.items():
                self._add(name, total - self._published.get((name, labels), 0.0), *labels)
            self._published = totals

    def _actors(self) -> dict[Series, float]:
        """How many actors of each kind are up and how often each was restarted, according to the cluster."""
        kinds = ("particle", "scorer", "grader", "coordinator")
        alive: dict[Series, float] = {("actors_alive", (kind,)): 0 for kind in kinds}
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
