"""Sizes of a base model, an expert and a split, from configuration, headers and tokens. Loads no weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from evoswarm.engine.lengths import longest_of
from evoswarm.engine.tokenizer import RunTokenizer
from evoswarm.plan.sizes import Shape, Workload
from evoswarm.utility.requests import every_request
from evoswarm.utility.types import Generate, Split, Utility
from evoswarm.weights.merge import full_tensors, lora_modules
from evoswarm.weights.pool import Pool
from evoswarm.weights.skeleton import load_skeleton
from evoswarm.weights.tensorfile import TensorSpec

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def shape_of(model: str, pool: Pool, *, dtype: str, trust_remote_code: bool) -> Shape:
    """The shape of a base model and of a particle of its experts. Reads configuration and headers, no weights.

    Args:
        model: base model folder or hub name.
        pool: its experts.
        dtype: `engine.dtype`.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    config, skeleton = load_skeleton(model, trust_remote_code=trust_remote_code)
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
        adapted=_adapted(pool.layout) if pool.kind == "adapter" else parameters,
        expert_bytes=pool.nbytes,
        bytes_per_parameter=width,
        kv_bytes_per_token=2 * text.num_hidden_layers * kv_heads * head_size * width,
        longest=getattr(text, "max_position_embeddings", None),
        checkpoints=pool.kind == "checkpoint",
    )


def _adapted(layout: Sequence[TensorSpec]) -> int:
    """Parameters of the base model that an adapter changes: B A of each module, and whole tensors."""
    shapes = {spec.name: spec.shape for spec in layout}
    pairs = lora_modules(shapes)
    products = sum(pair.b[0] * pair.a[-1] for pair in pairs.values())
    whole = full_tensors(shapes)
    return products + sum(
        math.prod(shape) for name, shape in whole.items() if name.removesuffix(".weight") not in pairs
    )


def workload_of(utility: Utility, tokenizer: RunTokenizer, split: Split = "validation") -> Workload:
    """The tokens of a split, and of the longest request of all splits."""
    encoder = tokenizer.encoder()
    read, new = [], 0
    for request in utility.requests(split):
        if isinstance(request, Generate):
            read.append(len(encoder.prompt(request.prompt)))
            new = max(new, request.max_new_tokens)
        else:
            parts = [encoder.option(request.prompt, option) for option in request.options]
            read.append(max((len(prompt) + len(option) for prompt, option in parts), default=1))
    longest = longest_of(every_request(utility), tokenizer)
    return Workload(len(read), sum(read), longest, new)
