"""Prepares the training of one expert: checks settings and data, and encodes the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
from transformers.utils import logging

from evoswarm.config.training import TrainingConfig
from evoswarm.engine.tokenizer import load_tokenizer
from evoswarm.errors import UserError
from evoswarm.experts.encode import encode
from evoswarm.experts.method import check_targets, choose
from evoswarm.experts.trainer import check
from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.expert import read_json
from evoswarm.weights.skeleton import load_skeleton

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
    settings, data = config.optimization(name), config.experts[name].data
    folder, work = config.pool / name, work_folder(config, name)
    check(settings)
    if folder.exists() and not (folder / RECORD).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists and was not created by `evoswarm experts train`; move it away")
    tokenizer = load_tokenizer(config.tokenizer or config.model, trust_remote_code=config.trust_remote_code)
    _, skeleton = load_skeleton(config.model, trust_remote_code=config.trust_remote_code)
    check_targets(choose(config.method), skeleton)
    longest = getattr(skeleton.config.get_text_config(), "max_position_embeddings", None) or settings.max_length
    rows = skeleton.get_input_embeddings().weight.shape[0]
    encoded = encode(data, tokenizer, max_length=min(settings.max_length, longest), rows=rows, root=config.root)
    keys = {"model", "tokenizer", "method", "save", "dtype", "threads", "seed"}
    made_of = config.model_dump(mode="json", include=keys) | {"data": encoded.sha256}
    made_of["training"] = settings.model_dump(mode="json", exclude={"checkpoint_steps"})
    if (work / FAILED).exists() and read_json(work / RECORD)["made_of"] != made_of:
        shutil.rmtree(work)  # a changed config after a failure means a fresh start
    known = [path for path in (folder / RECORD, work / RECORD) if path.exists()]
    for path in known:
        _same(read_json(path).get("made_of", {}), made_of, path.parent)
    if not known:
        rows = {"input_ids": encoded.ids, "labels": encoded.labels}
        features = datasets.Features({key: datasets.List(datasets.Value("int32")) for key in rows})
        quiet_libraries()
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(work / "data")
        record = {"made_of": made_of, "data": {"path": str(data.path)} | encoded.facts}
        RunDirectory(work).write_json(RECORD, record)
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


def quiet_libraries() -> None:
    """Turn off the libraries' progress bars and tables; evoswarm shows its own."""
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
