"""Common kinds of LoRA adapters, and how to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.weights.expert import open_expert

Weights = dict[str, np.ndarray]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "every linear layer": {"target_modules": "all-linear"},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 32}},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "biases": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole embedding": {"modules_to_save": ["embed_tokens"]},
}
"""Settings of `LoraConfig` per kind of adapter."""


def weights_of(folder: Path) -> Weights:
    expert = open_expert(folder)
    return {name: expert.flat(name).reshape(spec.shape) for name, spec in expert.specs.items()}


def config_of(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())
