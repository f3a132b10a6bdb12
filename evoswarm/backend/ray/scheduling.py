"""Options of Ray for the processes of a run: resources, placement groups, labels and strategies."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from evoswarm.backend.ray.placement import Placement
from evoswarm.config.run import RayBackend

HIDES_GPUS = "CUDA_VISIBLE_DEVICES"


def process_options(*, cpus: float, gpus: float, run_gpus: float = 0.0, **more: Any) -> dict[str, Any]:
    """Options of one actor or task that starts no others: they would inherit an environment without GPUs.

    Ray shows every GPU of a node to a process that requests none. Such a process gets an environment without GPUs
    where the cluster or the run has some; elsewhere it does not, because a runtime environment delays the start.
    `run_gpus` are the GPUs that the run requests in total, which may be on nodes that have not joined yet.
    """
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, **more}
    if not gpus and (run_gpus or ray.cluster_resources().get("GPU")):
        options["runtime_env"] = {"env_vars": {HIDES_GPUS: ""}}
    return options


def hide_gpus() -> None:
    """Hide the GPUs of this process from itself, and not from the actors and tasks that it starts."""
    os.environ[HIDES_GPUS] = ""


class Scheduling:
    """Options of Ray that place each actor."""

    def __init__(self, settings: RayBackend, placement: Placement) -> None:
        self._settings, self._placement = settings, placement
        self._groups: list[PlacementGroup] = []
        self._bundles: dict[tuple[str, int], int] = {}

    def reserve(self) -> None:
        """Request one placement group for all actors, if the config asks for colocation or gang scheduling."""
        if not (self._settings.colocate or self._settings.gang):
            return
        bundles = self._placement.bundles
        group = placement_group(
            [bundle.resources for bundle in bundles],
            strategy="SPREAD" if self._settings.spread else "PACK",
            bundle_label_selector=[dict(bundle.labels) for bundle in bundles],
        )
        self._groups.append(group)
        for index, bundle in enumerate(bundles):
            self._bundles |= {("particle", number): index for number in bundle.particles}
            if bundle.scorer is not None:
                self._bundles["scorer", bundle.scorer] = index
            if bundle.grader is not None:
                self._bundles["grader", bundle.grader] = index

    def of_particle(self, number: int) -> dict[str, Any]:
        """Options that place a particle."""
        return self._in_bundle("particle", number) or self._anywhere(dict(self._settings.particle_labels))

    def of_grader(self, number: int) -> dict[str, Any]:
        """Options that place a grader."""
        return self._in_bundle("grader", number) or self._anywhere(dict(self._settings.grader_labels))

    def of_scorer(self, number: int) -> dict[str, Any]:
        """Options that place a scorer; one that is split over GPUs gets a placement group of its own,
        on one node: PACK would use several where no node has room."""
        labels = dict(self._settings.scorer_labels)
        if bundle := self._in_bundle("scorer", number):
            return bundle
        if ranks := self._placement.ranks_of_scorer:
            group = placement_group(ranks, strategy="STRICT_PACK", bundle_label_selector=[labels] * len(ranks))
            self._groups.append(group)
            inside = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
            return {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": inside}  # the ranks take the resources
        return self._anywhere(labels)

    def close(self) -> None:
        """Remove the placement groups."""
        for group in self._groups:
            remove_placement_group(group)

    def _in_bundle(self, kind: str, number: int) -> dict[str, Any]:
        index = self._bundles.get((kind, number))
        if index is None:
            return {}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._groups[0], index)}

    def _anywhere(self, labels: dict[str, str]) -> dict[str, Any]:
        strategy = "SPREAD" if self._settings.spread else "DEFAULT"
        return {"scheduling_strategy": strategy} | ({"label_selector": labels} if labels else {})
