"""Where graders go: what they take, what they leave for engines, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graded import graded_config

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import Placement, place, place_engine, place_run
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError

pytestmark = pytest.mark.usefixtures("graded_types")


def node(cpus: float, gpus: float, *, count: int = 1, **labels: str) -> Nodes:
    return Nodes("node", count, cpus, gpus, labels)


def placed(nodes: list[Nodes], grading: str, *, particles: int = 4, ranks: int = 1, **settings: Any) -> Placement:
    return place(RayBackend(**settings), nodes, particles=particles, threads=1, ranks=ranks, grading={grading})  # type: ignore[arg-type]


def test_a_reward_model_gets_a_gpu_if_one_is_to_spare() -> None:
    eight = placed([node(64, 8)], "gpu")
    assert (eight.graders, eight.grader_gpus, eight.grader_cpus, eight.scorers) == (1, 1.0, 0, 7)
    assert missing(eight, [node(64, 8)]) is None
    one = placed([node(64, 1)], "gpu")
    assert (one.grader_gpus, one.grader_cpus, one.scorers, one.scorer_gpus) == (0.0, 1, 1, 1.0)
    assert missing(one, [node(64, 1)]) is None


def test_an_engine_of_a_whole_node_is_not_given_up_for_a_grader() -> None:
    assert placed([node(64, 8)], "gpu", ranks=8).grader_gpus == 0
    two = placed([node(64, 8), node(8, 1)], "gpu", ranks=8, particle_gpus=0)
    assert (two.grader_gpus, two.scorers) == (1.0, 1)


def test_a_grader_and_an_engine_share_one_gpu() -> None:
    shared = placed([node(8, 1)], "gpu", grader_gpus=0.3, scorer_gpus=0.7, particle_gpus=0)
    assert shared.scorers == 1 and missing(shared, [node(8, 1)]) is None
    full = placed([node(8, 1)], "gpu", grader_gpus=0.3, scorer_gpus=0.8, scorers=1, particle_gpus=0)
    assert "beside 1 grader" in str(missing(full, [node(8, 1)])) or "the run needs 1.1 GPUs" in str(
        missing(full, [node(8, 1)])
    )
    halves = placed([node(8, 2)], "gpu", graders=2, grader_gpus=0.5, scorer_gpus=1, particle_gpus=0)
    assert halves.scorers == 1 and missing(halves, [node(8, 2)]) is None
    eighths = placed([node(64, 1)], "gpu", graders=3, grader_gpus=0.125, scorer_gpus=0.125, particle_gpus=0)
    assert eighths.scorers == 5


def test_a_service_takes_nothing_and_a_sandbox_takes_a_cpu() -> None:
    service, sandbox = placed([node(4, 0)], "service"), placed([node(4, 0)], "cpu")
    assert (service.grader_cpus, service.scorers) == (0, 4) and service.bundles[-1].grader is None
    assert (sandbox.grader_cpus, sandbox.scorers) == (1, 3)
    assert placed([node(4, 0)], "cpu", graders=3).scorers == 1
    assert service.summary.endswith("1 grader with 0 CPU") and sandbox.summary.endswith("1 grader with 1 CPU")


def test_without_graded_scoring_there_are_no_graders(tmp_path: Path) -> None:
    config = graded_config(tmp_path, "backend={type: ray}")
    assert place_run(config, [node(4, 0)]).graders == 1
    assert isinstance(config.backend, RayBackend)
    assert place_engine(config, config.backend, [node(4, 0)]).graders == 0
    assert "grader" not in place(RayBackend(), [node(4, 0)], particles=4, threads=1).summary


def test_what_is_missing_counts_graders() -> None:
    lack = missing(placed([node(2, 0)], "cpu", graders=2, scorers=1), [node(2, 0)])
    assert str(lack).startswith("the run needs 3 CPUs (1 scorers x 1 + 2 graders x 1), the cluster has 2")
    lack = missing(placed([node(8, 2)], "gpu", graders=2, grader_gpus=1, scorers=1, particle_gpus=0), [node(8, 2)])
    assert lack is not None and "+ 2 graders x 1), the cluster has 2" in lack and "backend.grader_gpus" in lack
    quarters = placed([node(8, 2)], "gpu", graders=2, grader_gpus=0.75, scorer_gpus=0.5, scorers=1, particle_gpus=0)
    lack = missing(quarters, [node(8, 2)])
    assert lack is not None and "only 0 of 1 scorer fit" in lack and "beside 2 graders" in lack
    lack = missing(placed([node(8, 0)], "cpu", grader_labels={"disk": "ssd"}), [node(8, 0)])
    assert lack is not None and "correct backend.grader_labels" in lack


def test_graders_go_to_nodes_that_engines_cannot_use() -> None:
    nodes = [node(8, 2, kind="big"), node(8, 1, kind="small")]
    apart = placed(nodes, "gpu", scorer_labels={"kind": "big"}, particle_gpus=0)
    assert apart.scorers == 2 and missing(apart, nodes) is None


def test_graders_are_reserved_together_with_the_others() -> None:
    gang = placed([node(8, 4)], "gpu", gang=True, particle_gpus=0, scorers=2, grader_labels={"disk": "ssd"})
    assert gang.bundles[-1].grader == 0
    assert gang.bundles[-1].resources == {"CPU": 1.0} and gang.bundles[-1].labels == {"disk": "ssd"}
    both = placed([node(8, 4)], "gpu", colocate=True, scorers=2, particle_gpus=0, grader_gpus=0.5)
    assert [bundle.resources.get("GPU") for bundle in both.bundles] == [1, 1, 0.5]


def test_a_config_with_unsuitable_graders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backend\.graders: utility asked asks a service within limits per run"):
        graded_config(tmp_path, "backend={type: ray, graders: 2}")
    with pytest.raises(UserError, match=r"backend\.graders: utility exact_match is scored by the scorers; omit it"):
        graded_config(tmp_path, "backend={type: ray, graders: 1}", "utility={type: exact_match, data: echo.json}")
    assert graded_config(tmp_path, "backend={type: ray, graders: 2}", type="computed")
