"""vLLM's start arguments, and the reasons if it does not start. Does not import vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.dtype import computed_dtype, device_of, quantized
from evoswarm.engine.errors import out_of_memory
from evoswarm.engine.vllm_config import VllmEngine
from evoswarm.errors import UserError, first_line

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Possible ranks of vLLM's LoRA slots."""
DEFAULTS = {"enable_prefix_caching": True, "seed": 0, "use_tqdm_on_load": False, "language_model_only": True}
"""Prompts are text, so the parts of a model that read images stay unloaded."""
DETERMINISTIC = {"enable_prefix_caching": False, "enable_chunked_prefill": False}
"""Where a prompt is cut, and how much of it is cached, depends on timing and changes the last digits of a result."""
_MEMORY = ("cache blocks", "kv cache", "free memory on device", "memory profiling", "cuda out of memory")


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


def explain(error: BaseException, *, model: str, log: Path | None = None) -> UserError:
    """Why vLLM did not start, and what to do; `log` has its output."""
    text, short = str(error), _short(error)
    if unknown := knows_not(error):
        return UserError(unknown)
    if out_of_memory(error) or any(mark in text.lower() for mark in _MEMORY):
        return UserError(
            f"engine vllm: {model} does not fit into memory ({short}); lower engine.args.max_model_len or max_num_seqs,"
            " or give it more: engine.args.gpu_memory_utilization, or without a GPU the environment variable "
            "VLLM_CPU_KVCACHE_SPACE (GiB)"
        )
    if hint := quantized(model):
        return UserError(f"engine vllm: {model} cannot be served ({short}){hint}")
    where = f" and {log}" if log else ""
    return UserError(f"engine vllm: {model} cannot be served ({short}); check engine.args{where}")


def knows_not(error: BaseException) -> str | None:
    """The message about a model that vLLM has no implementation of, if this is vLLM's error about it."""
    text = str(error)
    if "are not supported for now" not in text and "not supported in-tree" not in text and "no vLLM impl" not in text:
        return None
    return f"engine vllm: it does not know this model ({_short(error)}); use engine.type: transformers"


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "error," in line or "Error:" in line]
    return lines[0].removeprefix("Value error, ").partition(" [type=")[0] if lines else first_line(error)


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
