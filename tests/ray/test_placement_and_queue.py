"""Placement and queue: the logic of the Ray backend that needs no Ray."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evoswarm.backend.queue import WorkQueue
from evoswarm.backend.ray.placement import for_actors, place
from evoswarm.config.run import RayBackend, TransformersEngine, VllmEngine


def test_without_gpus_a_scorer_takes_the_threads_of_its_engine() -> None:
    placement = place(RayBackend(), {"CPU": 8.0}, particles=10, threads=2)
    assert (placement.scorers, placement.particle_gpus, placement.scorer_gpus) == (4, 0, 0)
    assert placement.lacks({"CPU": 8.0}) is None


def test_with_gpus_every_particle_pins_one_and_scorers_take_the_rest() -> None:
    placement = place(RayBackend(), {"CPU": 64.0, "GPU": 16.0}, particles=10, threads=1)
    assert (placement.particle_gpus, placement.scorer_gpus, placement.scorers) == (1, 1, 6)
    assert placement.lacks({"CPU": 64.0, "GPU": 16.0}) is None


def test_particles_without_gpus_leave_them_all_to_the_scorers() -> None:
    placement = place(RayBackend(particle_gpus=0), {"CPU": 64.0, "GPU": 8.0}, particles=40, threads=1)
    assert (placement.scorers, placement.gpus) == (8, 8)


def test_fractions_let_particles_share_a_gpu() -> None:
    placement = place(RayBackend(particle_gpus=0.1), {"CPU": 64.0, "GPU": 8.0}, particles=40, threads=1)
    assert placement.scorers == 4 and placement.lacks({"CPU": 64.0, "GPU": 8.0}) is None


def test_what_is_missing_is_said_with_what_to_lower() -> None:
    lack = place(RayBackend(), {"CPU": 64.0, "GPU": 8.0}, particles=20, threads=1).lacks({"CPU": 64.0, "GPU": 8.0})
    assert lack is not None and "needs 21 GPUs (20 particles x 1 + 1 scorers x 1), the cluster has 8" in lack
    assert "backend.particle_gpus" in lack
    lack = place(RayBackend(scorers=5), {"CPU": 4.0}, particles=2, threads=1).lacks({"CPU": 4.0})
    assert lack is not None and "needs 5 CPUs" in lack


def test_vllm_on_a_part_of_a_gpu_leaves_the_rest_to_the_particles() -> None:
    resources = {"CPU": 64.0, "GPU": 1.0}
    shared = place(RayBackend(particle_gpus=0.05, scorer_gpus=0.5, scorers=1), resources, particles=10, threads=1)
    assert shared.shares_gpus and shared.lacks(resources) is None
    assert for_actors(VllmEngine(), shared).args == {"gpu_memory_utilization": 0.45}  # type: ignore[union-attr]
    own = VllmEngine(args={"gpu_memory_utilization": 0.3})
    assert for_actors(own, shared).args == {"gpu_memory_utilization": 0.3}  # type: ignore[union-attr]
    whole = place(RayBackend(), {"CPU": 64.0, "GPU": 16.0}, particles=10, threads=1)
    assert for_actors(VllmEngine(), whole).args == {} and not whole.shares_gpus  # type: ignore[union-attr]
    assert for_actors(TransformersEngine(), shared) == TransformersEngine()


def test_an_engine_that_is_split_has_a_bundle_for_each_of_its_ranks() -> None:
    resources = {"CPU": 64.0, "GPU": 16.0}
    placement = place(RayBackend(particle_gpus=0), resources, particles=10, threads=2, ranks=4)
    assert (placement.scorer_gpus, placement.scorers) == (4, 4)
    assert placement.bundles == [{"CPU": 2.0, "GPU": 1.0}] * 4
    engine = for_actors(VllmEngine(args={"tensor_parallel_size": 4}), placement)
    assert engine.args == {"tensor_parallel_size": 4, "distributed_executor_backend": "ray"}  # type: ignore[union-attr]
    alone = place(RayBackend(), {"CPU": 8.0}, particles=10, threads=2, ranks=2)
    assert alone.scorers == 2 and alone.bundles is None
    lack = place(RayBackend(scorers=3), {"CPU": 8.0}, particles=2, threads=2, ranks=2).lacks({"CPU": 8.0})
    assert lack is not None and "needs 12 CPUs (3 scorers x 4)" in lack


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
