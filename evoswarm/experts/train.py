"""Trains one expert, from its data to its folder in the pool. Runs in any process."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from evoswarm.config.training import TrainingConfig
from evoswarm.engine import TransformersEngine
from evoswarm.engine.load import first_line, load_model, load_tokenizer
from evoswarm.errors import UserError
from evoswarm.experts.card import training_card
from evoswarm.experts.convert import Factors, lora_factors, save_lora
from evoswarm.experts.encode import encode
from evoswarm.experts.initialize import prepare
from evoswarm.experts.method import Chosen, check_targets, choose
from evoswarm.experts.trainer import ExpertTrainer, LossNotFinite, Progress, arguments, check, collator
from evoswarm.weights.expert import ADAPTER_CONFIG, read_json

RECORD = "training.json"
"""Record of an expert's data, settings and results, in its folder."""
FAILED = "failed.txt"
"""Reason for a failed training, in its work folder."""


def work_folder(config: TrainingConfig, name: str) -> Path:
    """The folder of an expert during training; pools ignore it."""
    return config.pool / ".training" / name


def prepare_data(config: TrainingConfig, name: str) -> dict[str, Any]:
    """Encode an expert's data into its work folder, unless this is already done.

    Returns:
        Statistics of the data.

    Raises:
        UserError: the data is unusable, or the folder holds an expert with different data or settings.
    """
    settings, data, folder = config.optimization(name), config.experts[name].data, config.pool / name
    check(settings)
    if folder.exists() and not (folder / RECORD).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists and was not created by `evoswarm experts train`; move it away")
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    skeleton = load_skeleton(config)
    check_targets(choose(config.method), skeleton)
    longest = getattr(skeleton.config.get_text_config(), "max_position_embeddings", None) or settings.max_length
    encoded = encode(data, tokenizer, max_length=min(settings.max_length, longest))
    made_of = {
        "model": config.model,
        "data": encoded.sha256,
        "method": config.method.model_dump(mode="json"),
        "training": settings.model_dump(mode="json", exclude={"checkpoint_steps"}),
        "save": config.save,
        "dtype": config.dtype,
        "threads": config.threads,
        "seed": config.seed,
    }
    work = work_folder(config, name)
    if (work / FAILED).exists() and read_json(work / RECORD)["made_of"] != made_of:
        shutil.rmtree(work)  # a changed config after a failure means a fresh start
    for path in (config.pool / name / RECORD, work / RECORD):
        if path.exists():
            _same(read_json(path).get("made_of", {}), made_of, path.parent)
    if not (config.pool / name / RECORD).exists() and not (work / RECORD).exists():
        rows = {"input_ids": encoded.ids, "labels": encoded.labels}
        features = datasets.Features({key: datasets.List(datasets.Value("int32")) for key in rows})
        with _quiet():
            datasets.Dataset.from_dict(rows, features=features).save_to_disk(work / "data")
        _write_json(work / RECORD, {"made_of": made_of, "data": {"path": str(data.path)} | encoded.facts})
    return encoded.facts


def _same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        raise UserError(
            f"{folder}: was trained with a different {changed[0]} (it has {_short(before.get(changed[0]))}, the config "
            f"has {_short(now[changed[0]])}); choose another pool, or remove this folder"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def train_expert(
    config: TrainingConfig, name: str, *, trained: Callable[[PeftModel], object] = lambda model: None
) -> dict[str, Any]:
    """Train one expert with prepared data. Resumes an interrupted training and keeps a finished expert.

    Args:
        config: the pool.
        name: the expert.
        trained: called with the model after its training, before it is saved.

    Returns:
        The record (training.json), or `{"error": reason}` if the training failed.
    """
    folder, work = config.pool / name, work_folder(config, name)
    if (folder / RECORD).exists():
        return read_json(folder / RECORD)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        return _train(config, name, folder, work, trained)
    except (UserError, LossNotFinite) as error:
        reason = str(error)
    except Exception as error:  # a failed expert must not stop the others
        reason = f"{type(error).__name__}: {first_line(error)}"
    finally:
        torch.set_num_threads(threads)
    with contextlib.suppress(OSError):  # the failure may be a full disk
        (work / FAILED).write_text(reason + "\n", encoding="utf-8")
    return {"error": reason}


def _train(
    config: TrainingConfig, name: str, folder: Path, work: Path, trained: Callable[[PeftModel], object]
) -> dict[str, Any]:
    progress = Progress(work / "progress.json")
    settings, chosen = config.optimization(name), choose(config.method)
    options = arguments(settings, work / "steps", seed=config.seed)
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    with _quiet():
        data = datasets.load_from_disk(work / "data")
    model = adapted(config, chosen, data, collator(tokenizer, settings))
    start = lora_factors(model) if chosen.changes_base else None
    trainer = ExpertTrainer(
        model=model,
        args=options,
        train_dataset=data,
        data_collator=collator(tokenizer, settings),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    with _quiet():
        trainer.train(resume_from_checkpoint=_checkpoint(work / "steps"))
    record = read_json(work / RECORD) | _outcome(trainer, model, progress.seconds)
    new = work / "expert"
    shutil.rmtree(new, ignore_errors=True)
    trained(model)
    save(model, new, chosen, native=config.save == "native", start=start)
    _write_json(new / RECORD, record)
    (new / "README.md").write_text(training_card(config, name, chosen, record), encoding="utf-8")
    new.replace(folder)
    shutil.rmtree(work, ignore_errors=True)
    return record


def load_skeleton(config: TrainingConfig) -> Any:
    """The base model without weights.

    Raises:
        UserError: its config cannot be loaded.
    """
    try:
        settings = AutoConfig.from_pretrained(config.model, trust_remote_code=config.trust_remote_code)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(settings, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{config.model}: cannot load the base model ({first_line(error)})") from None


def adapted(config: TrainingConfig, chosen: Chosen, data: Any, collate: Any) -> PeftModel:
    """The base model with a new adapter, identical for all experts with the same seed.

    Raises:
        UserError: the base cannot be loaded, or the method does not support it.
    """
    model = load_model(config.model, TransformersEngine(dtype=config.dtype, trust_remote_code=config.trust_remote_code))
    check_targets(chosen, model)
    model.config.use_cache = False  # with a cache, transformers does not separate packed examples
    if torch.cuda.is_available():
        model.to("cuda")
    try:
        set_seed(config.seed)
        prepare(chosen, model, data, collate)
        set_seed(config.seed)
        return get_peft_model(model, chosen.config)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"method {chosen.name}: {first_line(error)}") from None


def save(model: PeftModel, folder: Path, chosen: Chosen, *, native: bool, start: Factors | None = None) -> None:
    """Write a trained adapter: as plain LoRA if it can be converted, unless `native` is set.

    Raises:
        LossNotFinite: the adapter contains NaN or infinite values.
    """
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        raise LossNotFinite("the trained adapter contains NaN or infinite values; lower training.learning_rate")
    if chosen.route == "converted" and not native:
        settings = {"fan_in_fan_out": bool(getattr(model.peft_config["default"], "fan_in_fan_out", False))}
        save_lora(
            lora_factors(model, start), folder, base=str(chosen.config.base_model_name_or_path), settings=settings
        )
        return
    model.save_pretrained(folder, save_embedding_layers=False)
    # peft writes module names in set order, which differs between processes.
    config = read_json(folder / ADAPTER_CONFIG)
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the libraries' progress bars and tables; evoswarm shows its own."""
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    datasets.disable_progress_bars()
    yield
