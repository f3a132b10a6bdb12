"""Trains one expert, from its data to its folder in the pool. Runs in any process."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftModel
from transformers import PrinterCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from evoswarm.config.training import TrainingConfig
from evoswarm.engine.load import load_model
from evoswarm.engine.tokenizer import load_tokenizer
from evoswarm.errors import UserError, first_line
from evoswarm.experts.allocate import rank_allocation
from evoswarm.experts.card import training_card
from evoswarm.experts.convert import Factors, adapt, lora_factors
from evoswarm.experts.initialize import distribute_ranks, preprocess
from evoswarm.experts.method import Chosen, check_targets, choose
from evoswarm.experts.prepare import FAILED, RECORD, quiet_libraries, work_folder
from evoswarm.experts.save import save
from evoswarm.experts.trainer import (
    ExpertTrainer,
    LossNotFinite,
    Progress,
    Report,
    arguments,
    collator,
    interruptible,
)
from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.expert import read_json


def train_expert(
    config: TrainingConfig,
    name: str,
    *,
    report: Report = lambda status: None,
    trained: Callable[[PeftModel], object] = lambda model: None,
) -> dict[str, Any]:
    """Train one expert with prepared data. Resumes an interrupted training and keeps a finished expert.

    `report` is called after every step, `trained` with the model after its training, before it is saved.

    Returns:
        The record (training.json), or `{"error": reason}` if the training failed.
    """
    work = work_folder(config, name)
    if (config.pool / name / RECORD).exists():
        return read_json(config.pool / name / RECORD)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        return _train(config, name, report, trained)
    except (UserError, LossNotFinite) as error:
        reason = str(error)
    except Exception as error:  # a failed expert must not stop the others
        reason = f"{type(error).__name__}: {first_line(error)}"
    finally:
        torch.set_num_threads(threads)
    with contextlib.suppress(OSError):  # the failure may be a full disk
        (work / FAILED).write_text(reason + "\n", encoding="utf-8")
    return {"error": reason}


def _train(config: TrainingConfig, name: str, report: Report, trained: Callable[[PeftModel], object]) -> dict[str, Any]:
    work = work_folder(config, name)
    progress = Progress(work / "progress.json", report)
    settings, chosen = config.optimization(name), choose(config.method)
    options = arguments(settings, work / "steps", seed=config.seed)
    tokenizer = load_tokenizer(config.tokenizer or config.model, trust_remote_code=config.trust_remote_code)
    quiet_libraries()
    data = datasets.load_from_disk(work / "data")
    collate = collator(tokenizer, settings)
    model, start = adapted(config, chosen, data, collate)
    interruptible(model)
    callbacks = [progress, *rank_allocation(model, options)]
    trainer = ExpertTrainer(model=model, args=options, train_dataset=data, data_collator=collate, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_checkpoint(work / "steps"))
    record = read_json(work / RECORD) | _outcome(trainer, model, progress.seconds)
    new = work / "expert"
    shutil.rmtree(new, ignore_errors=True)
    trained(model)
    save(model, new, chosen, how=config.save, start=start)
    RunDirectory(new).write_json(RECORD, record)
    (new / "README.md").write_text(training_card(config, name, chosen, record), encoding="utf-8")
    new.replace(config.pool / name)
    shutil.rmtree(work, ignore_errors=True)
    return record


def adapted(config: TrainingConfig, chosen: Chosen, data: Any, collate: Any) -> tuple[PeftModel, Factors | None]:
    """The base model with a new adapter, identical for all experts with the same seed; see `adapt`.

    Raises:
        UserError: the base cannot be loaded, or the method does not support it.
    """
    model = load_model(config.model, config)
    check_targets(chosen, model)
    model.config.use_cache = False  # with a cache, transformers does not separate packed examples
    if torch.cuda.is_available():
        model.to("cuda")
    try:
        set_seed(config.seed)
        preprocess(chosen, model, data, collate)
        set_seed(config.seed)
        model, start = adapt(model, chosen)
        distribute_ranks(chosen, model, data, collate)
        if config.save == "lora" and not chosen.plain:
            lora_factors(model)  # what does not convert must fail before the training
        return model, start
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"method {chosen.name}: {first_line(error)}") from None


def _checkpoint(steps: Path) -> str | None:
    """The newest complete checkpoint; removes incomplete ones."""
    while steps.is_dir() and (last := get_last_checkpoint(str(steps))):
        if (Path(last) / "trainer_state.json").exists():
            return str(last)
        shutil.rmtree(last)
    return None


def _outcome(trainer: ExpertTrainer, model: PeftModel, seconds: float) -> dict[str, Any]:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tenth = max(1, len(losses) // 10)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    names = ("torch", "transformers", "peft")
    return {
        "steps": trainer.state.global_step,
        "loss": {"first": losses[0], "last_tenth": sum(losses[-tenth:]) / tenth, "by_step": losses},
        "trained_parameters": trained,
        "seconds": round(seconds, 2),
        "versions": {name: version(name) for name in names},
    }
