"""The base model as transformers builds it, without weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from evoswarm.errors import UserError, first_line
from evoswarm.weights.hub import model_folder


def load_skeleton(model: str, *, trust_remote_code: bool) -> tuple[PretrainedConfig, PreTrainedModel]:
    """The configuration of a base model, and the model without weights (on the meta device).

    Raises:
        UserError: the configuration cannot be read.
    """
    folder = model_folder(model, weights=False)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            return config, auto_class(config).from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{model}: the base model's configuration cannot be read ({first_line(error)})") from None


def reads_images(model: str, *, trust_remote_code: bool) -> bool:
    """Whether a base model also reads images, according to its configuration.

    Raises:
        UserError: it cannot be read.
    """
    return type(load_skeleton(model, trust_remote_code=trust_remote_code)[0]) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def auto_class(config: PretrainedConfig) -> Any:
    """The class that loads a model which writes text: a causal language model, or one that also reads images."""
    images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if images and not known else AutoModelForCausalLM
