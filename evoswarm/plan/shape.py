"""How large a base model and an expert are, from their headers alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from evoswarm.engine.errors import first_line
from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import full_tensors, lora_modules

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Shape:
    """Sizes of a base model and of one expert.

    Attributes:
        parameters: of the base model, with a tied head counted once.
        layers: number of layers.
        adapted: parameters of the base model that an expert changes.
        expert_bytes: size of an expert's tensors.
        bytes_per_parameter: of the base model as the engine loads it.
        kv_bytes_per_token: keys and values of one token, over all layers, in the model's data type.
        longest: tokens that the model accepts.
    """

    parameters: int
    layers: int
    adapted: int
    expert_bytes: int
    bytes_per_parameter: int
    kv_bytes_per_token: int
    longest: int | None

    @property
    def weight_bytes(self) -> int:
        """The base model in the engine."""
        return self.parameters * self.bytes_per_parameter

    @property
    def pristine_bytes(self) -> int:
        """The engine's copy of the parameters that experts change."""
        return self.adapted * self.bytes_per_parameter


def shape_of(model: str, expert: Expert, *, dtype: str, trust_remote_code: bool) -> Shape:
    """The shape of a base model and one of its experts. Reads configuration and headers, no weights.

    Args:
        model: base model folder or hub name.
        expert: any expert of the pool.
        dtype: `engine.dtype`.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    config, skeleton = _skeleton(model, trust_remote_code)
    text = config.get_text_config()
    parameters = sum(p.numel() for p in skeleton.parameters())
    saved = str(text.dtype or torch.float32).removeprefix("torch.")
    width = BYTES.get(saved if dtype == "auto" else dtype, 2)
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        parameters=parameters,
        layers=text.num_hidden_layers,
        adapted=_adapted(expert) if expert.kind == "adapter" else parameters,
        expert_bytes=expert.nbytes,
        bytes_per_parameter=width,
        kv_bytes_per_token=2 * text.num_hidden_layers * kv_heads * head_size * width,
        longest=getattr(text, "max_position_embeddings", None),
    )


def _skeleton(model: str, trust_remote_code: bool) -> tuple[PretrainedConfig, torch.nn.Module]:
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            return config, AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{model}: the base model's configuration cannot be read ({first_line(error)})") from None


def _adapted(expert: Expert) -> int:
    """Parameters of the base model that an adapter changes: B A of each module, and whole tensors."""
    shapes = {name: spec.shape for name, spec in expert.specs.items()}
    pairs = lora_modules(shapes)
    products = sum(pair.b[0] * pair.a[-1] for pair in pairs.values())
    whole = full_tensors(shapes)
    return products + sum(_count(shape) for name, shape in whole.items() if name.removesuffix(".weight") not in pairs)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
