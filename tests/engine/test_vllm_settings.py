"""What vLLM is started with, what its refusals mean, and which way particles are put into it. Needs no vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from evoswarm.config.load import parse_config
from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.vllm_config import FEW_EXAMPLES
from evoswarm.engine.vllm_settings import arguments, explain
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool

BASE = str(world() / "base")
ADAPTER = {"r": 8, "lora_alpha": 16}


def test_the_users_arguments_come_before_what_is_only_a_default() -> None:
    found = arguments(VllmEngine(args={"seed": 7, "max_model_len": 9}), model=BASE, adapter=ADAPTER)
    assert (found["seed"], found["max_model_len"], found["enable_prefix_caching"]) == (7, 9, True)
    assert found["dtype"] == "float32" and not found["trust_remote_code"] and "enable_lora" not in found


def test_slots_fit_the_adapters_that_go_beside_each_other() -> None:
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


def settled(target: str, *, limit: int, max_new_tokens: int | None = None, **engine: object) -> str:
    data = target_config(target, algorithm="model_swarms")
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": limit}
    data["utility"]["max_new_tokens"] = max_new_tokens or data["utility"].get("max_new_tokens", 8)
    config = parse_config(data, root=world())
    utility, pool = make_utility(config.utility, root=config.root), open_pool(config.pool, model=config.model)
    settings = VllmEngine(**engine)  # type: ignore[arg-type]
    requests = utility.requests("validation")
    return settings.settled(adapters=pool.kind == "adapter", requests=requests).adapter_mode


def test_auto_batches_particles_where_each_has_little_to_answer() -> None:
    assert settled("office", limit=200) == "merged"
    assert settled("office", limit=FEW_EXAMPLES) == "multi_lora"
    assert settled("office", limit=FEW_EXAMPLES + 1) == "merged"
    assert settled("office", limit=2, max_new_tokens=9) == "merged"
    assert settled("people", limit=2) == "merged"  # options of several tokens
    assert settled("office", limit=2, adapter_mode="merged") == "merged"
    assert settled("office", limit=200, adapter_mode="multi_lora") == "multi_lora"


def test_other_engines_have_nothing_to_settle(tmp_path: Path) -> None:
    engine = TransformersEngine()
    assert engine.settled(adapters=True, requests=[]) is engine
