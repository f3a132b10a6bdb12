"""Why vLLM does not start. Does not import vLLM."""

from __future__ import annotations

from pathlib import Path

from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.dtype import quantized
from evoswarm.engine.errors import out_of_memory
from evoswarm.errors import UserError, first_line

_MEMORY = ("cache blocks", "kv cache", "free memory on device", "memory profiling", "cuda out of memory")


def explain(error: BaseException, *, model: str, log: Path | None = None) -> UserError:
    """Why vLLM did not start, and what to do; `log` has its output."""
    text, short = str(error), _short(error)
    if unknown := knows_not(error):
        return UserError(unknown)
    if "does not support LoRA" in text:
        return AdaptersNotSupported(f"vLLM serves no adapters of this model ({short})")
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
