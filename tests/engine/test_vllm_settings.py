"""What vLLM is started with, what its refusals mean, and which way particles are put into it. Needs no vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.vllm_config import slots
from evoswarm.engine.vllm_errors import explain
from evoswarm.engine.vllm_internals import check_patterns, renaming
from evoswarm.engine.vllm_settings import arguments
from evoswarm.toy import world
from evoswarm.utility.types import Choose, Generate, Request

BASE = str(world() / "base")
ADAPTER = {"r": 8, "lora_alpha": 16}


def test_the_users_arguments_come_before_what_is_only_a_default() -> None:
    found = arguments(VllmEngine(args={"seed": 7, "max_model_len": 9}), model=BASE, adapter=ADAPTER)
    assert (found["seed"], found["max_model_len"], found["enable_prefix_caching"]) == (7, 9, True)
    assert found["dtype"] == "float32" and not found["trust_remote_code"] and "enable_lora" not in found


def test_slots_fit_the_adapters_that_go_side_by_side() -> None:
    config = VllmEngine(adapter_mode="multi_lora", max_loras=5)
    found = arguments(config, model=BASE, adapter=ADAPTER | {"rank_pattern": {"q_proj": 17}})
    assert (found["max_loras"], found["max_cpu_loras"], found["max_lora_rank"]) == (5, 12, 32)
    with pytest.raises(AdaptersNotSupported, match="up to rank 512, not 1024"):
        arguments(config, model=BASE, adapter=ADAPTER | {"r": 1024})
    with pytest.raises(AdaptersNotSupported, match="the experts are checkpoints"):
        arguments(config, model=BASE, adapter=None)


def test_a_deterministic_engine_computes_whole_prompts() -> None:
    found = arguments(VllmEngine(deterministic=True), model=BASE, adapter=ADAPTER)
    assert found["enable_prefix_caching"] is found["enable_chunked_prefill"] is False


def test_sleep_is_vllms_own_mode() -> None:
    assert arguments(VllmEngine(sleep=True), model=BASE, adapter=ADAPTER)["enable_sleep_mode"] is True


INVALID = "1 validation error for VllmConfig\n  Value error, {} [type=value_error, input_value=...]"
UNKNOWN = "Model architectures ['X'] are not supported for now. Supported: many"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "lower engine.args.max_model_len"),
        (ValueError("No available memory for the cache blocks. Try"), "engine.args.gpu_memory_utilization"),
        (ValueError("Free memory on device cuda:0 (1/80 GiB) on startup is less"), "does not fit into memory"),
        (ValueError(INVALID.format(UNKNOWN)), f"does not know this model ({UNKNOWN}); use engine.type: transformers"),
        (ValueError(INVALID.format("heads (5) by (2).")), "cannot be served (heads (5) by (2).); check engine.args"),
    ],
)
def test_a_refusal_says_which_setting_to_change(error: Exception, says: str) -> None:
    said = str(explain(error, model="m"))
    assert says in said and said.startswith("engine vllm: ") and "\n" not in said


def modes(*, adapters: bool, **settings: object) -> list[str | None]:
    return [engine.mode for engine in VllmEngine(**settings).candidates(adapters=adapters)]  # type: ignore[arg-type]


def test_auto_leaves_the_choice_of_the_mode_to_a_measurement_if_the_experts_are_adapters() -> None:
    assert modes(adapters=True) == ["merged", "multi_lora"]
    assert modes(adapters=False) == ["merged"]
    assert modes(adapters=True, adapter_mode="multi_lora") == ["multi_lora"]
    assert TransformersEngine().candidates(adapters=True) == [TransformersEngine()]


def test_a_call_has_whole_splits_of_as_many_particles_as_share_a_batch() -> None:
    assert VllmEngine(batch_size=200).slices_per_call == 21
    beside = VllmEngine(batch_size=4096, adapter_mode="multi_lora")
    assert beside.particles_per_batch == beside.slices_per_call == 40
    assert TransformersEngine().slices_per_call == 1


def fitted(parameters: int, *requests: Request, **settings: object) -> VllmEngine:
    config = VllmEngine(**settings)  # type: ignore[arg-type]
    return config.fitted(model=BASE, parameters=parameters, requests=lambda: requests)


@pytest.mark.parametrize(("parameters", "count"), [(10**6, 40), (320 * 10**6, 12), (10**11, 1)])
def test_slots_are_as_many_as_fit_into_a_tenth_of_the_gpu(parameters: int, count: int) -> None:
    assert slots(0.9 * (80 << 30), parameters=parameters) == count
    assert slots(0, parameters=parameters) == 40


def test_given_slots_are_kept() -> None:
    assert fitted(10**11, adapter_mode="multi_lora", max_loras=3).particles_per_batch == 3
    assert fitted(10**6, adapter_mode="multi_lora").particles_per_batch == 40


def test_the_length_is_that_of_the_longest_request_and_at_most_what_the_model_takes(
    tmp_path: Path, tiny_llama: Path
) -> None:
    requests = (Generate("a" * 99, 50), Choose("b" * 150, ("c", "c" * 20)))
    config = VllmEngine()
    for many, length in ((1, 150), (2, 172)):
        found = config.fitted(model=str(tiny_llama), parameters=1, requests=lambda: requests[:many])  # noqa: B023
        assert found.args["max_model_len"] == length
    assert fitted(1, *requests).args["max_model_len"] == 64  # what the toy model takes
    assert fitted(1, *requests, args={"max_model_len": 9}).args["max_model_len"] == 9


def test_vllm_gets_less_of_the_gpu_where_the_pristine_copy_is_beside_it() -> None:
    assert VllmEngine().beside(0.16, share=1.0).args == {"gpu_memory_utilization": 0.74}
    half = VllmEngine().beside(0.1, share=0.5)
    assert half.in_actor(gpus=0.5, shared=True).args == {"gpu_memory_utilization": 0.35}
    for given in (VllmEngine(args={"gpu_memory_utilization": 0.8}), VllmEngine(pristine="host")):
        assert given.beside(0.16, share=1.0) == given


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_modules_with_ranks_of_their_own_are_refused_where_vllm_ignores_them(key: str) -> None:
    class Old:
        pass

    class New:
        def get_rank_and_scaling(self) -> None:
            pass

    check_patterns(Old(), ADAPTER | {key: {}})
    check_patterns(New(), ADAPTER | {key: {"q_proj": 4}})
    with pytest.raises(ValueError, match="ignores rank_pattern and alpha_pattern"):
        check_patterns(Old(), ADAPTER | {key: {"q_proj": 4}})


def test_adapters_keep_the_names_of_modules_that_vllm_loads_as_one() -> None:
    class Mapper:
        """Of vLLM 0.26 to 0.28."""

        def get_unstacked_mapper(self) -> str:
            return "unstacked"

    class Newer(Mapper):
        def get_rename_mapper(self) -> str:
            return "renaming"

    class Model:
        def __init__(self, mapper: object) -> None:
            self.hf_to_vllm_mapper = mapper

    assert [renaming(Model(mapper)) for mapper in (Mapper(), Newer(), None)] == ["unstacked", "renaming", None]
    assert renaming(object()) is None
