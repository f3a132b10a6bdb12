"""vLLM's start arguments. Does not import vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.dtype import computed_dtype, device_of
from evoswarm.engine.vllm_config import VllmEngine

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Possible ranks of vLLM's LoRA slots."""
DEFAULTS = {
    "enable_prefix_caching": True,
    "seed": 0,
    "use_tqdm_on_load": False,
    "language_model_only": True,
    "load_format": "safetensors",
    "config_format": "hf",
    "tokenizer_mode": "hf",
}
"""Prompts are text, so the parts of a model that read images stay unloaded. Where a folder also has Mistral's own files
(consolidated.safetensors, params.json), vLLM would read them instead of those that the pool and transformers read."""
DETERMINISTIC = {"enable_prefix_caching": False, "enable_chunked_prefill": False}
"""Where a prompt is cut, and how much of it is cached, depends on timing and changes the last digits of a result."""


def arguments(config: VllmEngine, *, model: str, adapter: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of vLLM's engine; the user's own come before what is only a default.

    Raises:
        AdaptersNotSupported: multi_lora is requested, and vLLM cannot serve these experts as adapters.
    """
    found: dict[str, Any] = DEFAULTS | config.args
    if config.deterministic:
        found |= DETERMINISTIC
    if config.sleep:
        found["enable_sleep_mode"] = True
    if config.adapter_mode == "multi_lora":
        found |= _slots(config.particles_per_batch, adapter)
    return found | {"model": model, "dtype": _dtype(model, config), "trust_remote_code": config.trust_remote_code}


def _slots(count: int, adapter: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments for this many adapters of one base."""
    if adapter is None:
        raise AdaptersNotSupported("multi_lora is for adapters, and the experts are checkpoints")
    rank = max([int(adapter["r"]), *(adapter.get("rank_pattern") or {}).values()])
    fitting = [known for known in RANKS if known >= rank]
    if not fitting:
        raise AdaptersNotSupported(f"vLLM takes adapters up to rank {RANKS[-1]}, not {rank}")
    return {"enable_lora": True, "max_loras": count, "max_lora_rank": fitting[0], "max_cpu_loras": 2 * count + 2}


def _dtype(model: str, config: VllmEngine) -> str:
    """The saved type for `auto`, as with transformers; vLLM's own `auto` would halve float32."""
    return computed_dtype(model, config, device=device_of())[0]
