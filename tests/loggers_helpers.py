"""Reads logs back: with TensorBoard's own reader, and from the file of an offline W&B run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Series = dict[str, list[tuple[int, float]]]
"""Steps and values by name, in file order."""
_BLOCK, _FILE_HEADER, _RECORD_HEADER = 32768, 7, 7


def tensorboard_series(run_dir: Path) -> Series:
    """The series that TensorBoard shows for a run directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def tensorboard_settings(run_dir: Path) -> dict[str, Any]:
    """The hyperparameters of a run on TensorBoard's HParams page."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def wandb_records(run_dir: Path) -> list[Any]:
    """The records of the only offline run in a run directory: LevelDB's log format after W&B's header."""
    from wandb.proto import wandb_internal_pb2

    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    data, at, whole, records = file.read_bytes(), _FILE_HEADER, b"", []
    while at + _RECORD_HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _RECORD_HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        at += _RECORD_HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return records


def wandb_series(run_dir: Path) -> Series:
    """The history of the only offline run."""
    found: Series = {}
    for record in wandb_records(run_dir):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name, value in items.items():
                if not name.startswith("_"):
                    found.setdefault(name, []).append((int(items["_step"]), value))
    return found
