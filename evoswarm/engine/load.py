"""Loads a base model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from evoswarm.engine.dtype import computed_dtype, device_of, quantized
from evoswarm.engine.errors import out_of_memory
from evoswarm.engine.loading import ModelLoading
from evoswarm.errors import UserError, first_line
from evoswarm.weights.expert import checkpoint_files, no_weights
from evoswarm.weights.hub import model_folder
from evoswarm.weights.skeleton import auto_class
from evoswarm.weights.tensorfile import TensorFile

NOT_LOADED = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError, MemoryError)
"""What loading a model with transformers raises if its files, its code or the memory do not suffice."""


def load_model(
    model: str, config: ModelLoading, *, device: str | None = None, kind: Callable[[Any], Any] = auto_class
) -> PreTrainedModel:
    """The base model in host memory, from safetensors only.

    Args:
        model: base model folder or hub name.
        config: how to load it.
        device: torch device that it will be moved to; None: the GPU if there is one.
        kind: the class of transformers that loads it, by its configuration.

    Raises:
        UserError: it cannot be loaded.
    """
    folder = Path(model_folder(model))
    if not checkpoint_files(folder):
        raise UserError(f"{model}: {no_weights(folder)}")
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        name, _ = computed_dtype(str(folder), config, device=device_of(device))
        dtype = name if name == "auto" else getattr(torch, name)
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        loaded, info = kind(settings).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
    except NOT_LOADED as error:
        if out_of_memory(error):
            raise UserError(
                f"{model}: the base model does not fit into memory ({first_line(error)}); give engine.dtype: bfloat16, "
                "fewer engines on one GPU (backend.scorer_gpus: 1, backend.particle_gpus: 0) or a larger GPU"
            ) from None
        raise UserError(
            f"{model}: the base model cannot be loaded ({first_line(error)}){quantized(str(folder))}"
        ) from None
    if info["missing_keys"]:
        raise UserError(f"{model}: {incomplete(info['missing_keys'])}{quantized(str(folder))}")
    return loaded


def incomplete(missing: Collection[str]) -> str:
    """The message about a checkpoint without some of the model's tensors, which transformers would fill at random."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"its files do not contain {min(missing)}{more}; copy the whole checkpoint"


def saved_tensors(model: str) -> Mapping[str, np.ndarray]:
    """Lazy views of the tensors in the base model's files; none if one has a data type that evoswarm does not read."""
    try:
        files = [TensorFile(path) for path in checkpoint_files(Path(model_folder(model)))]
    except UserError:
        return {}
    return {name: array for file in files for name, array in file.arrays().items()}


def end_tokens(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: those of the model (instruct models have several) and of the tokenizer."""
    own = generation.eos_token_id if generation else None
    ids = own if isinstance(own, list) else [own]
    return sorted({int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None})


def generation_config(model: str) -> GenerationConfig:
    """As for `AutoModelForCausalLM`: the model's own file, or else its config."""
    try:
        return GenerationConfig.from_pretrained(model)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model))
