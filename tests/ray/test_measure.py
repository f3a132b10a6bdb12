"""Engine settings are measured on the cluster, each in a process with the resources of a scorer."""

from __future__ import annotations

from pathlib import Path

from echo import echo_config

from evoswarm.backend.ray.measure import measure_on_cluster
from evoswarm.callbacks import Callbacks


def test_the_seconds_of_each_config_come_back_in_order(cluster: None, tmp_path: Path) -> None:
    configs = [
        echo_config(tmp_path, "backend={type: ray, colocate: true}", f"engine.delay={delay}") for delay in (0.5, 0)
    ]
    slow, quick = measure_on_cluster(configs, Callbacks())
    assert 0 < quick < slow
