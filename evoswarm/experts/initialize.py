"""Preprocessing for methods that need the base model's activations or gradients on the training data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel, initialize_lora_eva_weights
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import nn
from torch.utils.data import DataLoader

from evoswarm.errors import UserError
from evoswarm.experts.method import Chosen

EXAMPLES = 128
"""The number of examples used. CorDA's hooks do not support batches."""
BATCH = 16
"""Examples per batch of EVA, which leaves out batches whose answers have fewer tokens than it looks for components."""
PASSES = 20
"""How often EVA may see these examples. It took up to 3 on tiny models."""


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


def distribute_ranks(chosen: Chosen, model: PeftModel, data: Any, collate: Any) -> None:
    """Give every module of an EVA adapter its rank and its first A, from the inputs that it has on the first examples.

    Source: EVA (arXiv 2410.07170).

    Raises:
        UserError: the components of the inputs still change after `PASSES` passes over the examples.
    """
    if str(getattr(chosen.config, "init_lora_weights", "")).lower() == "eva":
        batches = [_on_device(batch, model) for batch in _batches(data, collate, size=BATCH)]
        initialize_lora_eva_weights(model, Passes(batches), show_progress_bar=False)


@dataclass(frozen=True)
class Passes:
    """Batches again and again, but not without end, as peft would take them."""

    batches: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return PASSES * len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(PASSES):
            yield from self.batches
        raise UserError(
            f"EVA has not converged after {PASSES} passes over {len(self.batches)} examples; lower method.r or "
            "method.eva_config.tau, or train on more examples"
        )


def _batches(data: Any, collate: Any, *, size: int = 1) -> DataLoader[Any]:
    return DataLoader(data.select(range(min(len(data), EXAMPLES))), batch_size=size, collate_fn=collate)


def _on_device(batch: Any, model: nn.Module) -> dict[str, Any]:
    device = next(model.parameters()).device
    return {key: value.to(device) for key, value in batch.items()}


def _runner(model: nn.Module, data: Any, collate: Any, *, backward: bool) -> Callable[[], None]:
    def run() -> None:
        for batch in _batches(data, collate):
            loss = model(**_on_device(batch, model)).loss
            if backward:
                loss.backward()

    return run
