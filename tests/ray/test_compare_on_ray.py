"""A comparison spread over a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from echo import make_world

from evoswarm.compare.run import compare
from evoswarm.config.compare import parse_compare


def lines(folder: Path, **more: Any) -> list[dict[str, Any]]:
    data = {
        "name": more["backend"]["type"],
        "model": "no-base",
        "pool": "experts",
        "utility": {"type": "exact_match", "data": "echo.json"},
        "engine": {"type": "fake", "batch_size": 16},
        "compare": {"seeds": [0], "budget": 30, "methods": ["greedy_soup", "dare_ties", "evolmerge"]},
    } | more
    summary = compare(parse_compare(data, root=folder))
    found: list[dict[str, Any]] = summary["targets"]["target"]["lines"]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def test_a_comparison_on_a_cluster_finds_what_one_on_this_machine_finds(tmp_path: Path, cluster: None) -> None:
    make_world(tmp_path, validation=40, test=20)
    here = lines(tmp_path, backend={"type": "local"})
    there = lines(tmp_path, backend={"type": "ray"})
    assert len(here) == 3 and here == there
