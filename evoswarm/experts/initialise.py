"""What some methods want before the adapter is made: activations or gradients of the base model on its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from evoswarm.experts.method import Chosen

BATCHES, BATCH_SIZE = 16, 8
"""How much data is looked at."""


def prepare(chosen: Chosen, model: nn.Module, data: Any, collate: Any) -> None:
    """Run CorDA's and LoRA-GA's preprocessing on the first examples, where the method is one of them."""
    initialisation = str(getattr(chosen.config, "init_lora_weights", "")).lower()
    if initialisation == "corda":
        from peft.tuners.lora.corda import preprocess_corda

        preprocess_corda(model, chosen.config, run_model=_runner(model, data, collate, backward=False))
    elif initialisation == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        preprocess_loraga(model, chosen.config, train_step=_runner(model, data, collate, backward=True))
        model.zero_grad(set_to_none=True)


def _runner(model: nn.Module, data: Any, collate: Any, *, backward: bool) -> Callable[[], None]:
    def run() -> None:
        for batch in _batches(model, data, collate):
            loss = model(**batch).loss
            if backward:
                loss.backward()

    return run


def _batches(model: nn.Module, data: Any, collate: Any) -> Iterator[dict[str, Any]]:
    some = data.select(range(min(len(data), BATCHES * BATCH_SIZE)))
    device = next(model.parameters()).device
    for batch in DataLoader(some, batch_size=BATCH_SIZE, collate_fn=collate):
        yield {key: value.to(device) for key, value in batch.items()}
