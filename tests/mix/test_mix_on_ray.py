"""A run over models on a Ray cluster: the bytes of a run in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from mix_helpers import config_of, make_world

import evoswarm
from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected


@pytest.mark.slow
def test_models_are_asked_on_a_cluster_with_the_same_result(tmp_path: Path) -> None:
    data = make_world(tmp_path)
    local = config_of(data, tmp_path, tmp_path / "local")
    evoswarm.run(local)
    with connected(RayBackend(address="local")):
        ray = config_of(data, tmp_path, tmp_path / "ray", "backend={type: ray, scorers: 1}")
        evoswarm.run(ray)
    for name in ("recipe.json", "generations.jsonl", "models/experts/other.validation.jsonl"):
        assert (ray.run_dir / name).read_bytes() == (local.run_dir / name).read_bytes()
