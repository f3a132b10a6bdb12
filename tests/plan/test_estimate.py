"""The arithmetic of a plan, against small cases computed by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place
from evoswarm.config.backend import RayBackend
from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.plan.case import Case, EngineSettings
from evoswarm.plan.estimate import estimate
from evoswarm.plan.hardware import GB, Gpu, Hardware, gpu_with
from evoswarm.plan.sizes import Extra, Shape, Workload

SHAPE = Shape(
    parameters=10 * GB,
    layers=10,
    adapted=5 * GB,
    expert_bytes=GB // 10,
    bytes_per_parameter=2,
    kv_bytes_per_token=100_000,
    longest=None,
)
WORK = Workload(examples=100, prompt_tokens=10_000, longest=250, new_tokens=50)
CARD = Gpu("card", 50, 100, 1000)


def case(
    *, gpus: int = 1, nodes: int = 1, memory: float = 50, particles: int = 10, host: float = 1000, ranks: int = 1
) -> Case:
    hardware = Hardware(nodes, gpus, 8, replace(CARD, memory_gb=memory) if gpus else None, host)
    placement = place(RayBackend(), [Nodes("node", nodes, 64, gpus)], particles=particles, threads=1, ranks=ranks)
    return Case(SHAPE, WORK, 4, EngineSettings(ranks=ranks), placement, hardware)


def test_a_gpu_holds_weights_pristine_copy_and_what_is_left_for_keys_and_values() -> None:
    plan = estimate(case())
    assert plan.gpu is not None and plan.fits
    # 0.9 x 50 = 45 GB: 20 of weights, 2.5 of overhead; with the copy of 10 GB on the GPU 12.5 GB stay free, a quarter
    assert (plan.gpu.place, plan.gpu.weights, plan.gpu.pristine) == ("device", 20 * GB, 10 * GB)
    assert plan.gpu.kv_cache == pytest.approx(12.5 * GB)
    # a sequence takes 150 tokens x 100 kB = 15 MB
    assert plan.running == 100 and plan.max_model_len == 250


def test_the_pristine_copy_moves_to_the_host_if_too_little_of_the_gpu_stays_free() -> None:
    plan = estimate(case(memory=40))
    assert plan.gpu is not None and plan.fits
    assert (plan.gpu.place, plan.gpu.pristine) == ("host", 0)
    assert plan.gpu.kv_cache == pytest.approx(13.5 * GB)
    assert plan.node.scorers == 14 * GB  # the process and the copy


def test_the_pristine_copy_moves_to_the_host_if_it_would_cost_sequences() -> None:
    many = replace(case(), workload=replace(WORK, examples=1000, prompt_tokens=100_000))
    plan = estimate(many)  # 12.5 GB hold 833 sequences, 22.5 GB hold all
    assert plan.gpu is not None and plan.gpu.place == "host" and plan.running == 1000


def test_checkpoints_and_adapters_in_slots_need_no_pristine_copy() -> None:
    checkpoints = replace(case(memory=40), shape=replace(SHAPE, checkpoints=True))
    slots = replace(case(memory=40), engine=EngineSettings(adapters=1))
    for plan in map(estimate, (checkpoints, slots)):
        assert plan.gpu is not None and plan.gpu.pristine == 0
        assert plan.node.scorers == 4 * GB
    assert estimate(checkpoints).seconds.install == 0.25  # 10 GB from the host at 40 GB/s


def test_a_length_that_is_set_needs_its_room() -> None:
    long = replace(case(), engine=EngineSettings(max_length=131_072))  # 13.1 GB of keys and values, 12.5 GB are left
    (problem,) = estimate(long).problems
    assert problem.startswith("a GPU with 50 GB is 0.6 GB too small") and estimate(long).max_model_len == 131_072


def test_fewer_sequences_run_at_once_if_the_cache_is_small() -> None:
    plan = estimate(case(memory=26))  # 23.4 GB: 0.9 GB for the cache, 60 sequences of 15 MB
    assert plan.running == 60
    assert plan.seconds.write > estimate(case()).seconds.write


def test_a_model_that_is_too_large_is_split_over_the_smallest_number_of_gpus_that_holds_it() -> None:
    plan = estimate(case(gpus=8, memory=16))
    assert not plan.fits and plan.problems == [
        "a GPU with 16 GB is 8.1 GB too small for the engine; set engine.args.tensor_parallel_size: 2 "
        "(engine.type: vllm)"
    ]
    assert estimate(case(gpus=8, memory=16, ranks=2)).fits


def test_a_model_that_no_split_of_a_node_holds_needs_larger_gpus() -> None:
    (problem,) = estimate(case(gpus=1, memory=16)).problems
    assert "too small for the engine; use GPUs with more memory, or more GPUs per node" in problem


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"engine": EngineSettings(pristine="device")}, "set engine.pristine: host"),
        ({"engine": EngineSettings(max_length=10**6)}, "set engine.args.max_model_len: 250"),
        ({"engine": EngineSettings(adapters=40)}, "lower engine.max_loras"),
        ({"engine": EngineSettings(memory_share=0.5)}, "raise engine.args.gpu_memory_utilization"),
        ({"shape": replace(SHAPE, bytes_per_parameter=4)}, "set engine.dtype: bfloat16"),
    ],
)
def test_too_little_gpu_memory_says_by_how_much_and_which_setting_to_change(changes: dict[str, Any], says: str) -> None:
    (problem,) = estimate(replace(case(memory=26), **changes)).problems
    assert re.match(r"a GPU with 26 GB is \d+\.\d GB too small for the engine; ", problem) and problem.endswith(says)


def test_an_engine_on_a_part_of_a_gpu_may_need_all_of_it() -> None:
    shared = replace(case(), placement=replace(case().placement, scorer_gpus=0.4))
    (problem,) = estimate(shared).problems
    assert problem == "a GPU with 50 GB is 4.5 GB too small for the engine; set backend.scorer_gpus: 1"


def test_a_node_with_too_little_memory_says_what_to_lower() -> None:
    (problem,) = estimate(case(gpus=8, host=20)).problems
    assert problem.startswith("a node needs 4") and "has 20.0 GB; lower backend.scorers" in problem


def test_weights_in_flight_must_fit_into_the_object_store() -> None:
    (problem,) = estimate(case(particles=100, host=60)).problems
    assert problem.startswith("weights in flight need 20.1 GB of Ray's object store, which has 18.0 GB")


def test_a_generation_is_the_evaluations_divided_by_the_scorers() -> None:
    one, eight = estimate(case(particles=40)), estimate(case(gpus=8, particles=40))
    assert eight.seconds.generation == pytest.approx(one.seconds.generation / 8)
    each = one.seconds.install + one.seconds.read + one.seconds.write
    assert one.seconds.generation == pytest.approx(40 * each)
    # 10,000 prompt tokens x 2 x 10^10 operations at 40 TFLOP/s
    assert one.seconds.read == pytest.approx(5.0)


def test_without_gpus_engines_hold_the_model_in_host_memory() -> None:
    plan = estimate(case(gpus=0))
    assert plan.gpu is None and plan.node.scorers == 64 * 24 * GB  # one scorer per CPU of the node
    assert not plan.fits


def graded(*, gpus: int, graders: int, grader_gpus: float, scoring: int) -> Case:
    """Models that score answers, in graders on a node of a Ray cluster."""
    config = RayBackend(scorers=1, graders=graders, grader_gpus=grader_gpus)
    placement = place(config, [Nodes("node", 1, 64, gpus)], particles=10, threads=1, grading={"gpu"})
    return replace(case(gpus=gpus), placement=placement, scoring=scoring)


def test_models_that_score_answers_must_fit_into_a_graders_share_of_a_gpu() -> None:
    fitting = estimate(graded(gpus=2, graders=2, grader_gpus=0.5, scoring=25 * GB))
    assert fitting.fits and fitting.node.graders == 2 * GB  # two processes; the models are on the GPU
    assert fitting.gpu is not None and fitting.gpu.scoring == 0
    (problem,) = estimate(graded(gpus=2, graders=2, grader_gpus=0.5, scoring=26 * GB)).problems
    says = "the models that score answers have 26.0 GB and a grader has 25 GB of a GPU; raise backend.grader_gpus, or "
    assert problem == says + "use smaller ones"
    (problem,) = estimate(graded(gpus=2, graders=1, grader_gpus=1, scoring=51 * GB)).problems
    assert problem.endswith("a grader has 50 GB of a GPU; use smaller ones")


def test_each_grader_without_a_gpu_holds_the_models_in_host_memory() -> None:
    plan = estimate(graded(gpus=1, graders=3, grader_gpus=0, scoring=26 * GB))
    assert plan.fits and plan.node.graders == 3 * 27 * GB
    many = replace(graded(gpus=1, graders=50, grader_gpus=0, scoring=26 * GB))
    assert "lower backend.graders" in estimate(many).problems[0]


def test_without_ray_the_models_that_score_answers_are_beside_the_engine() -> None:
    on_gpu, on_cpu = (estimate(replace(case(gpus=gpus), scoring=9 * GB)) for gpus in (1, 0))
    assert on_gpu.gpu is not None and on_gpu.gpu.scoring == 9 * GB and on_gpu.node.other == 4 * GB
    assert on_gpu.gpu.kv_cache == estimate(case()).gpu.kv_cache - 9 * GB + (on_gpu.gpu.place == "host") * 10 * GB  # type: ignore[union-attr]
    assert on_cpu.node.other == 13 * GB


def test_what_belongs_to_no_generation_is_counted_with_its_own_split() -> None:
    half = replace(WORK, examples=50, prompt_tokens=5_000)
    extras = [Extra("baselines", 3, WORK), Extra("finalists", 4, WORK), Extra("finalists", 4, half)]
    plan, plain = estimate(replace(case(), extras=extras)), estimate(case())
    assert plan.extras == {"baselines": 3, "finalists": 8} and plain.seconds.extras == 0
    each = plan.seconds.install + plan.seconds.read + plan.seconds.write
    assert 7 * each < plan.seconds.extras < 11 * each
    assert plan.seconds.generation == plain.seconds.generation


def test_settings_of_an_engine_are_planned_as_it_uses_them() -> None:
    vllm = EngineSettings.of(VllmEngine(args={"tensor_parallel_size": 2, "max_num_seqs": 7, "max_model_len": 99}))
    assert vllm == EngineSettings(ranks=2, memory_share=0.9, running=7, pristine="auto", max_length=99)
    # the user reserves the GPU for vLLM, so the pristine copy is in host memory
    assert EngineSettings.of(VllmEngine(args={"gpu_memory_utilization": 0.9})).pristine == "host"
    assert EngineSettings.of(TransformersEngine(batch_size=5)).running == 5
    assert EngineSettings.of(TransformersEngine()).pristine == "auto"


@pytest.mark.parametrize(("memory", "name"), [(24, "RTX-4090"), (80, "H100"), (141, "H200"), (79.6, "H100")])
def test_a_gpu_is_known_by_its_memory(memory: float, name: str) -> None:
    assert gpu_with(memory).name == name and gpu_with(memory).memory_gb == memory


def test_a_gpu_is_known_by_its_name() -> None:
    assert gpu_with(0, "A10G") == Gpu("A10G", 24, 70, 600)
    assert gpu_with(85, "NVIDIA H100 80GB HBM3").name == "H100"
