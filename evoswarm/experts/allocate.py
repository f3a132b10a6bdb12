"""AdaLoRA and AdaMSS drop ranks during the training, and have to be told its steps."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from peft.tuners.adamss import AdamssModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from evoswarm.errors import UserError


class AllocateRanks(TrainerCallback):
    """Calls `update_and_allocate` where peft asks for it: after the optimizer's step, while there are gradients."""

    def __init__(self, tuner: AdaLoraModel | AdamssModel) -> None:
        self._tuner = tuner

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if isinstance(self._tuner, AdaLoraModel):
            config = self._tuner.peft_config["default"]
            config.total_step = state.max_steps
            if config.tinit + config.tfinal >= state.max_steps:
                steps = f"tinit {config.tinit} and tfinal {config.tfinal}"
                raise UserError(f"method adalora: {steps} leave none of the {state.max_steps} steps; lower them")

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tuner.update_and_allocate(state.global_step)


def rank_allocation(model: PeftModel, arguments: TrainingArguments) -> list[TrainerCallback]:
    """The callback for a method that needs it.

    peft does not save its state, nor the random numbers that MonteCLoRA draws ahead. Without them a resumed training
    would end in other weights, so these methods have no checkpoints.
    """
    tuner, config = model.base_model, model.peft_config["default"].to_dict()
    allocates = isinstance(tuner, AdaLoraModel) or (isinstance(tuner, AdamssModel) and config["use_asa"])
    if allocates or config.get("monteclora_config") is not None:
        arguments.save_strategy = SaveStrategy.NO
    return [AllocateRanks(tuner)] if allocates else []
