"""Placement and queue: the logic of the Ray backend that needs no Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from echo import echo_config
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evoswarm.backend.queue import WorkQueue
from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import for_actors, place
from evoswarm.config.run import RayBackend
from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.errors import UserError


def one(cpus: float, gpus: float = 0) -> list[Nodes]:
    """A cluster of one node."""
    return [Nodes("node", 1, cpus, gpus)]


def zones(**gpus: int) -> list[Nodes]:
    """A node of 8 CPUs for each zone."""
    return [Nodes(zone, 1, 8, number, {"zone": zone, "ray.io/node-id": "f00"}) for zone, number in gpus.items()]


def test_without_gpus_a_scorer_takes_the_threads_of_its_engine() -> None:
    placement = place(RayBackend(), one(8.0), particles=10, threads=2)
    assert (placement.scorers, placement.particle_gpus, placement.scorer_gpus) == (4, 0, 0)
    assert missing(placement, one(8.0)) is None


@pytest.mark.parametrize(
    ("nodes", "particles", "pinned", "scorers"),
    [(1, 7, 0, 1), (8, 20, 0, 8), (8, 7, 0, 8), (32, 20, 0, 32), (32, 40, 0, 32), (32, 16, 1, 16), (80, 40, 1, 40)],
)
def test_particles_pin_gpus_if_there_are_two_for_each_and_scorers_take_the_rest(
    nodes: int, particles: int, pinned: int, scorers: int
) -> None:
    cluster = one(256.0, float(nodes))
    placement = place(RayBackend(), cluster, particles=particles, threads=1)
    assert (placement.particle_gpus, placement.scorer_gpus, placement.scorers) == (pinned, 1, scorers)
    assert missing(placement, cluster) is None


def test_particles_without_gpus_leave_them_all_to_the_scorers() -> None:
    placement = place(RayBackend(particle_gpus=0), one(64.0, 8.0), particles=40, threads=1)
    assert (placement.scorers, placement.gpus) == (8, 8)


def test_fractions_let_particles_share_a_gpu() -> None:
    placement = place(RayBackend(particle_gpus=0.1), one(64.0, 8.0), particles=40, threads=1)
    assert placement.scorers == 4 and missing(placement, one(64.0, 8.0)) is None


def test_what_is_missing_is_reported_with_what_to_lower() -> None:
    lack = missing(place(RayBackend(particle_gpus=1), one(64.0, 8.0), particles=20, threads=1), one(64.0, 8.0))
    assert lack is not None and "needs 21 GPUs (20 particles x 1 + 1 scorers x 1), the cluster has 8" in lack
    assert "backend.particle_gpus" in lack
    lack = missing(place(RayBackend(scorers=5), one(4.0), particles=2, threads=1), one(4.0))
    assert lack is not None and "needs 5 CPUs" in lack


def test_vllm_on_a_part_of_a_gpu_leaves_the_rest_to_the_particles() -> None:
    resources = one(64.0, 1.0)
    shared = place(RayBackend(particle_gpus=0.05, scorer_gpus=0.5, scorers=1), resources, particles=10, threads=1)
    assert shared.shares_gpus and missing(shared, resources) is None
    assert for_actors(VllmEngine(), shared).args == {"gpu_memory_utilization": 0.45}  # type: ignore[union-attr]
    own = VllmEngine(args={"gpu_memory_utilization": 0.3})
    assert for_actors(own, shared).args == {"gpu_memory_utilization": 0.3}  # type: ignore[union-attr]
    whole = place(RayBackend(), one(64.0, 16.0), particles=10, threads=1)
    assert for_actors(VllmEngine(), whole).args == {} and not whole.shares_gpus  # type: ignore[union-attr]
    assert for_actors(TransformersEngine(), shared) == TransformersEngine()


def test_an_engine_that_is_split_has_a_bundle_for_each_of_its_ranks() -> None:
    resources = one(64.0, 16.0)
    placement = place(RayBackend(particle_gpus=0), resources, particles=10, threads=2, ranks=4)
    assert (placement.scorer_gpus, placement.scorers) == (4, 4)
    assert placement.ranks_of_scorer == [{"CPU": 2.0, "GPU": 1.0}] * 4
    engine = for_actors(VllmEngine(args={"tensor_parallel_size": 4}), placement)
    assert engine.args == {"tensor_parallel_size": 4, "distributed_executor_backend": "ray"}  # type: ignore[union-attr]
    alone = place(RayBackend(), one(8.0), particles=10, threads=2, ranks=2)
    assert alone.scorers == 2 and alone.ranks_of_scorer is None
    lack = missing(place(RayBackend(scorers=3), one(8.0), particles=2, threads=2, ranks=2), one(8.0))
    assert lack is not None and "needs 12 CPUs (3 scorers x 4)" in lack


def test_labels_say_which_nodes_count() -> None:
    config = RayBackend(particle_gpus=0.1, scorer_labels={"zone": "in(b, c)"}, particle_labels={"zone": "!c"})
    placement = place(config, zones(a=8, b=2, c=4), particles=20, threads=1)
    assert placement.scorers == 6 and missing(placement, zones(a=8, b=2, c=4)) is None
    shared = place(
        RayBackend(particle_gpus=0.1, scorer_labels={"zone": "b"}, particle_labels={"zone": "b"}),
        zones(a=8, b=4),
        particles=10,
        threads=1,
    )
    assert shared.scorers == 3


def test_labels_that_no_node_has_are_reported_with_those_there_are() -> None:
    placement = place(RayBackend(scorer_labels={"zone": "d", "disk": "!ssd"}), zones(a=0, b=0), particles=2, threads=1)
    assert missing(placement, zones(a=0, b=0)) == (
        "no node has the labels zone=d, disk=!ssd; the nodes have zone: a, b; give nodes these labels (`ray start "
        "--labels`), or correct backend.scorer_labels"
    )
    lack = missing(placement, one(8))
    assert lack is not None and "the nodes have none" in lack


def test_actors_that_have_nodes_of_their_own_must_fit_these() -> None:
    config = RayBackend(
        particle_gpus=1, scorers=2, scorer_gpus=1, particle_labels={"zone": "a"}, scorer_labels={"zone": "b"}
    )
    lack = missing(place(config, zones(a=2, b=9), particles=4, threads=1), zones(a=2, b=9))
    assert (
        lack
        == "4 particles x 1 GPUs need 4 GPUs, the nodes with zone=a have 2; add nodes, or lower backend.particle_gpus"
    )
    lack = missing(place(config, zones(a=9, b=2), particles=4, threads=5), zones(a=9, b=2))
    assert lack == "2 scorers x 5 CPUs need 10 CPUs, the nodes with zone=b have 8; add nodes, or lower backend.scorers"


def test_particles_share_the_bundle_of_their_scorer() -> None:
    config = RayBackend(colocate=True, scorers=3, particle_gpus=0.1, scorer_gpus=0.6, scorer_labels={"zone": "a"})
    placement = place(config, zones(a=3), particles=7, threads=2)
    assert [bundle.particles for bundle in placement.bundles] == [(0, 3, 6), (1, 4), (2, 5)]
    assert [bundle.resources for bundle in placement.bundles] == [
        {"CPU": 2, "GPU": 0.9},
        {"CPU": 2, "GPU": 0.8},
        {"CPU": 2, "GPU": 0.8},
    ]
    assert all(bundle.labels == {"zone": "a"} for bundle in placement.bundles)
    assert [placement.home(p) for p in (0, 4, 5, 7)] == [0, 1, 2, 0]
    assert missing(placement, zones(a=3)) is None


def test_a_bundle_of_more_than_one_gpu_has_room_for_every_share_on_one() -> None:
    def gpus(particle: float, scorer: float, particles: int) -> float:
        config = RayBackend(colocate=True, scorers=1, particle_gpus=particle, scorer_gpus=scorer)
        return place(config, one(64, 8), particles=particles, threads=1).bundles[0].resources["GPU"]

    assert gpus(0.3, 0.5, 2) == 2  # 0.5 + 0.3, and 0.3 beside
    assert gpus(0.6, 0.5, 3) == 4
    assert gpus(0.25, 1, 4) == 2
    assert gpus(0.5, 0.5, 1) == 1
    assert gpus(1, 1, 2) == 3


def test_a_bundle_that_fits_no_node_is_reported_with_what_is_in_it() -> None:
    config = RayBackend(colocate=True, scorers=2, particle_gpus=1, scorer_gpus=1)
    nodes = [Nodes("small", 4, 8, 2)]
    lack = missing(place(config, nodes, particles=5, threads=1), nodes)
    assert lack == (
        "a scorer with 3 particles takes 4 GPUs, no node has more than 2; lower backend.particle_gpus or "
        "backend.scorer_gpus"
    )


def test_a_gang_has_a_bundle_for_everything_that_takes_something() -> None:
    free = place(RayBackend(gang=True, scorers=2, particle_gpus=0), one(8), particles=3, threads=2)
    assert [bundle.resources for bundle in free.bundles] == [{"CPU": 2}, {"CPU": 2}]
    pinned = place(RayBackend(gang=True, scorers=1, particle_gpus=1), one(8, 4), particles=3, threads=1)
    assert [bundle.resources for bundle in pinned.bundles] == [{"CPU": 1, "GPU": 1}, *[{"GPU": 1}] * 3]


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ("a", ["a"]),
        ("!a", ["b", "c", None]),
        ("in(a, c)", ["a", "c"]),
        ("in(a,c)", ["a", "c"]),
        ("!in(a, c)", ["b", None]),
    ],
)
def test_label_selectors_are_read_as_ray_reads_them(condition: str, values: list[str | None]) -> None:
    found = [v for v in ("a", "b", "c", None) if Nodes("n", 1, 1, 0, {"zone": v} if v else {}).has({"zone": condition})]
    assert found == values


def config_error(**backend: object) -> str:
    with pytest.raises(ValidationError) as caught:
        RayBackend.model_validate(backend)
    return str(caught.value.errors()[0]["msg"])


def test_settings_of_placement_that_contradict_each_other_are_refused() -> None:
    assert "max_scorers 2 is below scorers 4" in config_error(scorers=4, max_scorers=2)
    labels = {"particle_labels": {"zone": "a"}, "scorer_labels": {"zone": "b"}}
    assert "differ in zone; give both the same" in config_error(colocate=True, **labels)
    assert RayBackend.model_validate(labels)
    assert "write value, '!value', in(a, b)" in config_error(scorer_labels={"zone": "in(a"})
    for key in ("-zone", "-/a", "a.b-/c", f"{'a' * 254}/b", "/b"):
        assert "is not a label name" in config_error(scorer_labels={key: "a"})
    assert RayBackend(scorer_labels={"ray.io/accelerator-type": "H100", "topology.kubernetes.io/zone": "a"})


@pytest.mark.parametrize("key", ["particle_gpus", "scorer_gpus"])
def test_gpus_that_ray_refuses_are_refused_before(key: str) -> None:
    assert "a fraction up to 1, or a whole number" in config_error(**{key: 1.5})
    assert "is too small for Ray; use 0, or at least 0.0001" in config_error(**{key: 0.00001})
    for value in (0, 0.0001, 1 / 3, 1, 4):
        assert RayBackend.model_validate({key: value})


@pytest.mark.parametrize("ranks", ["null", "[2]", ".inf", "0", "-1", "2.7", "two", "true"])
def test_an_engine_is_split_over_a_whole_number_of_gpus(ranks: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tensor_parallel_size must be a whole number of GPUs, 1 or more"):
        echo_config(tmp_path, f"engine={{type: vllm, args: {{tensor_parallel_size: {ranks}}}}}")


def test_an_engine_that_is_split_takes_as_many_whole_gpus(tmp_path: Path) -> None:
    split = "engine={type: vllm, args: {tensor_parallel_size: 2}}"
    for gpus in (1, 0.5, 3):
        with pytest.raises(UserError, match="backend.scorer_gpus: .* needs 2 whole GPUs"):
            echo_config(tmp_path, split, f"backend={{type: ray, scorer_gpus: {gpus}}}")
    for gpus in ("null", "0", "2"):
        assert echo_config(tmp_path, split, f"backend={{type: ray, scorer_gpus: {gpus}}}")


@pytest.mark.parametrize("setting", ["colocate", "gang"])
def test_an_engine_over_several_gpus_is_not_put_into_a_bundle(setting: str, tmp_path: Path) -> None:
    split = "engine={type: vllm, args: {tensor_parallel_size: 4}}"
    with pytest.raises(
        UserError, match=rf"backend.{setting}: an engine that is split over 4 GPUs .* tensor_parallel_size: 1"
    ):
        echo_config(tmp_path, split, f"backend={{type: ray, {setting}: true}}")
    assert echo_config(tmp_path, split, "backend={type: ray, spread: true}")


def test_a_worker_starts_with_its_own_jobs() -> None:
    queue = WorkQueue([1, 1, 1, 1], ["a", "b", "b", None])
    assert [queue.take(worker) for worker in "baba"] == [(1, 0), (0, 0), (2, 0), (3, 0)]


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(1, 5), st.randoms())
def test_every_slice_is_handed_out_once(sizes: list[int], workers: int, random: object) -> None:
    queue, taken = WorkQueue(sizes), []
    while (work := queue.take(random.randrange(workers))) is not None:  # type: ignore[attr-defined]
        taken.append(work)
    assert sorted(taken) == [(job, number) for job, size in enumerate(sizes) for number in range(size)]


def test_a_worker_stays_with_its_particle_then_begins_a_new_one_then_helps() -> None:
    queue = WorkQueue([2, 3])
    assert queue.take("a") == (0, 0)
    assert queue.take("b") == (1, 0)
    assert queue.take("a") == (0, 1)
    assert queue.take("a") == (1, 1)
    assert queue.take("b") == (1, 2)
    assert queue.take("a") is None


def test_lost_work_comes_back_first_and_dropped_jobs_do_not() -> None:
    queue = WorkQueue([3, 2])
    work = queue.take("a")
    assert work == (0, 0)
    queue.put_back(work)
    assert queue.take("a") == (0, 0)
    queue.drop(0)
    assert queue.take("a") == (1, 0)
