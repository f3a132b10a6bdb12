"""Preprocessing for methods that need the base model's activations or gradients on the training data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import nn
from torch.utils.data import DataLoader

from evoswarm.experts.method import Chosen

EXAMPLES = 128
"""The number of examples used, with batch size 1, because CorDA's hooks do not support batches."""


def preprocess(chosen: Chosen, model: nn.Module, data: Any, collate: Any) -> None:
    """Run the preprocessing of CorDA or LoRA-GA on the first examples, if the method is one of them."""
    initialization = str(getattr(chosen.config, "init_lora_weights", "")).lower()
    if initialization in ("corda", "lora_ga"):
        _maybe_include_all_linear_layers(chosen.config, model)  # peft does this only after the preprocessing
    if initialization == "corda":
        from peft.tuners.lora.corda import preprocess_corda

        preprocess_corda(model, chosen.config, run_model=_runner(model, data, collate, backward=False))
    elif initialization == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        preprocess_loraga(model, chosen.config, train_step=_runner(model, data, collate, backward=True))
        model.zero_grad(set_to_none=True)


def _runner(model: nn.Module, data: Any, collate: Any, *, backward: bool) -> Callable[[], None]:
    def run() -> None:
        some = data.select(range(min(len(data), EXAMPLES)))
        device = next(model.parameters()).device
        for batch in DataLoader(some, batch_size=1, collate_fn=collate):
            loss = model(**{key: value.to(device) for key, value in batch.items()}).loss
            if backward:
                loss.backward()

    return run
