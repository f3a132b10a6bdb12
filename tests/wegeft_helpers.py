"""WeGeFT on tiny models, with random phi so that the adapter has an effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from tiny_models import load

from evoswarm.experts.wegeft import WeGeFTConfig

TARGETS = ["q_proj", "v_proj", "up_proj", "down_proj"]
IDS = torch.arange(24).reshape(2, 12) + 8


def adapted(base: Path, *, seed: int = 0, **settings: Any) -> PeftModel:
    """An adapted model in evaluation mode."""
    chosen = {"r": 4, "wegeft_alpha": 2, "target_modules": TARGETS, "init_weights": False, "task_type": "CAUSAL_LM"}
    torch.manual_seed(seed)
    return get_peft_model(load(base), WeGeFTConfig(**(chosen | settings))).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """A model's logits for fixed ids [2, 12]."""
    result: torch.Tensor = model(input_ids=IDS).logits
    return result
