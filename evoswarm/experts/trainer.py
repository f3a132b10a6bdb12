"""transformers' Trainer with exact packing, a progress file, and an error if the loss becomes NaN."""

from __future__ import annotations

import difflib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import SchedulerType

from evoswarm.config.training import Optimization
from evoswarm.errors import UserError, first_line
from evoswarm.weights.expert import read_json

Report = Callable[[dict[str, Any]], None]
"""Receives the progress of a training: `step`, `of`, `loss`, `pid`, `seconds`."""


class LossNotFinite(Exception):
    """The loss became NaN or infinite."""


class ExpertTrainer(Trainer):
    """Stops at the first loss that is not finite, before it is saved in a checkpoint."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not math.isfinite(float(loss)):
            raise LossNotFinite(
                f"the loss is {float(loss)} at step {self.state.global_step + 1}; lower training.learning_rate, or "
                "check the data"
            )
        return loss


def interruptible(model: torch.nn.Module) -> None:
    """Let Ctrl-C stop a backward pass, which takes seconds on a CPU: Python handles signals only where it runs."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda grad: None)


class Progress(TrainerCallback):
    """Writes the training progress to a file that other processes can read."""

    def __init__(self, path: Path, report: Report) -> None:
        """Read the seconds of earlier attempts from the file. `report` receives what is written to it."""
        self._path, self._report, self._began = path, report, time.perf_counter()
        self._before = float(read_json(path)["seconds"]) if path.exists() else 0.0

    @property
    def seconds(self) -> float:
        """Training time, including earlier attempts up to their last step."""
        return self._before + time.perf_counter() - self._began

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        status = {
            "step": state.global_step,
            "of": state.max_steps,
            "loss": losses[-1] if losses else None,
            "pid": os.getpid(),
            "seconds": self.seconds,
        }
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(status), encoding="utf-8")
        temporary.replace(self._path)
        self._report(status)


def check(settings: Optimization) -> None:
    """Check the schedule and the extra arguments.

    Raises:
        UserError: a name is unknown or reserved.
    """
    schedules = [kind.value for kind in SchedulerType]
    if settings.schedule not in schedules:
        raise UserError(f"training.schedule {settings.schedule!r} is unknown; choose one of {', '.join(schedules)}")
    must_not_change = {"logging_strategy", "save_strategy", "save_only_model", "ignore_data_skip"}
    reserved = _arguments(settings, Path(), seed=0).keys() | must_not_change
    for name in settings.args:
        if name in reserved:
            raise UserError(f"training.args.{name} is set by evoswarm; use the keys of `training` instead")
        if name not in TrainingArguments.__dataclass_fields__:
            near = difflib.get_close_matches(name, TrainingArguments.__dataclass_fields__, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"training.args.{name} is not an argument of transformers' TrainingArguments{hint}")


def arguments(settings: Optimization, work: Path, *, seed: int) -> TrainingArguments:
    """The config as TrainingArguments.

    Raises:
        UserError: transformers rejects a value.
    """
    try:
        made = TrainingArguments(**_arguments(settings, work, seed=seed), **settings.args)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"training: {first_line(error)}") from None
    if made.n_gpu > 1:
        made._n_gpu = 1  # one GPU per expert; transformers would split the batch over all visible GPUs
    return made


def _arguments(settings: Optimization, work: Path, *, seed: int) -> dict[str, Any]:
    """The arguments that `training.args` cannot set."""
    gpu = torch.cuda.is_available()
    micro = settings.micro_batch_size or settings.batch_size
    return {
        "output_dir": str(work),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup if settings.warmup < 1 else 0.999999,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": settings.batch_size // micro,
        "bf16": settings.bf16 if settings.bf16 is not None else gpu and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if settings.gradient_checkpointing else None,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": settings.checkpoint_steps,
        "save_total_limit": 2,
        "seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def collator(tokenizer: PreTrainedTokenizerBase, settings: Optimization) -> Any:
    """Makes batches: right-padded, or packed into one row in which positions restart at each example.

    If there is no attention mask, transformers detects the examples by their positions and keeps them separate.
    """
    if settings.packing:
        return DataCollatorWithFlattening(return_flash_attn_kwargs=False)
    return DataCollatorForSeq2Seq(tokenizer, padding=True)
