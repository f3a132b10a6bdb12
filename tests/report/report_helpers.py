"""A pool of tiny adapters with hostile names, and questions for the fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.weights.tensorfile import TensorSpec, write_safetensors

SCRIPT = "<script>alert('owned')</script>"
NAMES = ("alpha", "b & <b>bold", "$\\frac{", "delta", '"><img src=x onerror=alert(1)>', "zeta")
SHAPES = {"A": (4, 16), "B": (16, 4)}
SPECS = [
    TensorSpec(f"base_model.model.model.layers.0.self_attn.q_proj.lora_{x}.weight", shape, "F32")
    for x, shape in SHAPES.items()
]


def write_pool(folder: Path, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    for name in names:
        expert = folder / name
        expert.mkdir(parents=True)
        (expert / "adapter_config.json").write_text(json.dumps(config))
        level = rng.normal() * 0.5
        tensors = ((s.name, (rng.standard_normal(s.shape) * 0.3 + level).astype("f4")) for s in SPECS)
        write_safetensors(expert / "adapter_model.safetensors", SPECS, tensors)


def examples(start: int, count: int, *, text: str = "say") -> list[dict[str, Any]]:
    """The fake engine says the last word where it knows the prompt, else a question mark.

    Every fourth answer is the question mark, so an expert that knows more loses some: real negative flips.
    """
    return [
        {"id": i, "question": f"{text} w{i}", "answer": "?" if i % 4 == 0 else f"w{i}"}
        for i in range(start, start + count)
    ]
