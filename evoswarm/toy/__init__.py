"""A toy world to try evoswarm: a base model, two pools of ten experts, four targets. No hub, no GPU, no waiting.

base/                 a Llama with about one million parameters, a character tokenizer and a chat template
experts/<skill>/      one LoRA adapter per skill, in peft's format; all were trained from the same A
unrelated/<skill>/    the same, but each was trained from an A of its own
targets/<name>.json   tasks in the Model Swarms format: `dev` (validation, 200) and `test` (1000)
"""

from __future__ import annotations

from pathlib import Path


def world() -> Path:
    """The folder of the toy world that ships with evoswarm."""
    return Path(__file__).parent / "world"
