"""Checks that a LoRA adapter can be mixed and merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evoswarm.errors import UserError
from evoswarm.weights.merge import lora_modules, rank_of
from evoswarm.weights.tensorfile import TensorSpec

_UNSUPPORTED = {
    "use_dora": "DoRA's magnitude makes the merge non-linear",
    "use_qalora": "its layers are quantized",
    "lora_bias": "the base model has no place for a bias of B",
    "layer_replication": "it changes the layers of the base model",
    "trainable_token_indices": "single tokens cannot be merged; train the embedding as one of modules_to_save",
    "target_parameters": "only whole modules can be merged",
    "alora_invocation_tokens": "an adapter that acts on part of the text cannot be merged",
    "use_bdlora": "it is not plain LoRA",
    "arrow_config": "it is not plain LoRA",
    "kasa_config": "it is not plain LoRA",
    "monteclora_config": "it is not plain LoRA",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` for which peft also changes the base weights when it loads the adapter."""


def lora_problems(config: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> Iterator[str]:
    """Why a LoRA adapter cannot be evolved, from its config and its tensors."""
    yield from (f"{key} is not supported ({why})" for key, why in _UNSUPPORTED.items() if config.get(key))
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        yield (
            f"init_lora_weights {start} changes the base model; convert the adapter to a plain LoRA with "
            "save_pretrained(folder, path_initial_model_for_weight_conversion=...)"
        )
    try:
        yield from _ranks(config, specs)
    except UserError as error:
        yield str(error)


def _ranks(config: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> list[str]:
    wrong = []
    for module, pair in lora_modules(specs).items():
        expected, found = rank_of(config, module), {pair.a.shape[:1], pair.b.shape[1:]}
        if found != {(expected,)}:
            shapes = f"A {list(pair.a.shape)} and B {list(pair.b.shape)}"
            wrong.append(f"{module} has {shapes}, adapter_config.json says rank {expected}")
    return wrong[:1]
