"""What some methods want before the adapter is made: activations or gradients of the base model on its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import nn
from torch.utils.data import DataLoader

from evoswarm.experts.method import Chosen

EXAMPLES = 128
"""How many are looked at, one by one: CorDA's hooks take no batches."""


def prepare(chosen: Chosen, model: nn.Module, data: Any, collate: Any) -> None:
    """Run CorDA's and LoRA-GA's preprocessing on the first examples, where the method is one of them."""
    initialisation = str(getattr(chosen.config, "init_lora_weights", "")).lower()
    if initialisation in ("corda", "lora_ga"):
        _maybe_include_all_linear_layers(chosen.config, model)  # peft itself does so only after these
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
    some = data.select(range(min(len(data), EXAMPLES)))
    device = next(model.parameters()).device
    for batch in DataLoader(some, batch_size=1, collate_fn=collate):
        yield {key: value.to(device) for key, value in batch.items()}
