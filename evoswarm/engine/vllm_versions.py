"""Which versions of vLLM the engine runs with. Imports vLLM only in functions."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Literal

from packaging.version import Version

from evoswarm.errors import UserError

OLDEST, NEWEST = (0, 26), (0, 32)
"""Versions that `make vllm-versions` runs."""
Use = Literal["merged", "multi_lora", "metrics"]
_RUNNERS = ("vllm.v1.worker.gpu_model_runner:GPUModelRunner", "vllm.v1.worker.gpu.model_runner:GPUModelRunner")
_FEATURES: Mapping[Use, Mapping[str, tuple[str, ...]]] = {
    "merged": {
        "vllm:LLM.collective_rpc": ("method", "args"),
        "vllm:LLM.reset_prefix_cache": (),
        "vllm:LLM.sleep": ("level",),
        "vllm:LLM.wake_up": (),
        "vllm:SamplingParams": ("prompt_logprobs", "logprob_token_ids", "detokenize", "stop_token_ids"),
        "vllm.engine.arg_utils:EngineArgs": (
            *("worker_extension_cls", "enable_prefix_caching", "use_tqdm_on_load", "language_model_only"),
            *("load_format", "config_format", "tokenizer_mode"),
        ),
        "vllm.v1.engine.core_client:InprocClient": (),
        "vllm.inputs:TokensPrompt": (),
        "vllm.distributed:cleanup_dist_env_and_memory": (),
        "vllm.model_executor.model_loader:get_model_loader": ("load_config",),
        "vllm.model_executor.model_loader.default_loader:DefaultModelLoader.get_all_weights": ("model_config", "model"),
        "vllm.model_executor.layers.linear:UnquantizedLinearMethod": (),
        "vllm.model_executor.layers.vocab_parallel_embedding:UnquantizedEmbeddingMethod": (),
        **{f"{runner}.reload_weights": ("weights_iterator", "is_checkpoint_format") for runner in _RUNNERS},
    },
    "multi_lora": {
        "vllm.engine.arg_utils:EngineArgs": ("enable_lora", "max_loras", "max_lora_rank", "max_cpu_loras"),
        "vllm.lora.request:LoRARequest": ("lora_name", "lora_int_id", "lora_path"),
        "vllm.lora.peft_helper:PEFTHelper.from_dict": (),
        "vllm.lora.peft_helper:PEFTHelper.validate_legal": (),
        "vllm.lora.lora_model:LoRAModel.from_lora_tensors": ("model_vocab_size", "weights_mapper"),
        "vllm.lora.model_manager:LoRAModelManager.add_adapter": (),
        "vllm.lora.worker_manager:LRUCacheWorkerLoRAManager.remove_adapter": (),
    },
    "metrics": {
        "vllm.v1.metrics.prometheus:unregister_vllm_metrics": (),
        "vllm.v1.metrics.ray_wrappers:ray_metrics": (),
        "vllm.v1.metrics.ray_wrappers:RayPrometheusStatLogger": ("vllm_config", "engine_indexes"),
    },
}
"""Names that each use of vLLM needs: internal or new ones, with the parameters that are passed by name."""


def installed() -> str:
    """vLLM's version."""
    import vllm

    return str(vllm.__version__)


def check_version() -> None:
    """
    Raises:
        UserError: vLLM is missing or too old, or newer and without something that the engine needs.
    """
    try:
        version = installed()
    except ImportError as error:
        raise UserError(
            f"engine vllm: vLLM cannot be imported ({error}); run pip install '.[vllm]' in the "
            "checkout, or without a GPU see docs/guides/engines.md"
        ) from None
    if _release(version) < OLDEST:
        problem = f"vLLM {version} is installed, evoswarm needs {_text(OLDEST)} or newer"
    elif lack := lacking("merged", version):
        problem = f"vLLM {version} is newer than {_text(NEWEST)}, the newest version that was tested, and has no {lack}"
    else:
        return
    raise UserError(
        f"engine vllm: {problem}; run pip install 'vllm=={_text(NEWEST)}.*', or use engine.type: transformers"
    )


def untested(version: str) -> str | None:
    """A message if a version of vLLM is newer than those that were tested."""
    if _release(version) <= NEWEST:
        return None
    return (
        f"engine vllm: vLLM {version} is newer than {_text(NEWEST)}, the newest version that was tested; the engine "
        "passed its self-check"
    )


def lacking(use: Use, version: str) -> str | None:
    """What vLLM does not have for a use; None if it has everything, which is known of the tested versions."""
    return next(absent(use), None) if untested(version) else None


def absent(use: Use) -> Iterator[str]:
    """The names, and parameters of them, that a use needs and the installed vLLM does not have."""
    for name, parameters in _FEATURES[use].items():
        try:
            found = pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            yield name
            continue
        known = inspect.signature(found).parameters if parameters else {}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            yield from (f"{name}({parameter}=)" for parameter in parameters if parameter not in known)


def _release(version: str) -> tuple[int, ...]:
    return Version(version).release[:2]


def _text(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))
