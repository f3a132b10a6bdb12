"""Small trainings: data of a few words, on the tiny Llama."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evoswarm.config.load import parse_training
from evoswarm.config.training import TrainingConfig

LONG = {"batch_size": 2, "learning_rate": 0.01, "epochs": 6, "checkpoint_steps": 10}
"""A training long enough to be killed in the middle."""


def write_data(path: Path, *, records: int = 24, seed: int = 0) -> Path:
    """Questions and answers as messages, one record a line."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdef", k=rng.randint(2, 6))) for _ in range(records)]
    lines = [
        {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": word[::-1]}]}
        for word in words
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def plain_config(folder: Path, model: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """A config of a local training, with data of its own for each name."""
    for seed, name in enumerate(names):
        write_data(folder / f"{name}.jsonl", seed=seed)
    config: dict[str, Any] = {
        "model": str(model),
        "pool": "pool",
        "experts": {name: f"{name}.jsonl" for name in names},
        "training": {"batch_size": 8, "learning_rate": 0.01},
        "backend": {"type": "local"},
    }
    return config | changes


def training_config(folder: Path, model: Path, *names: str, **changes: Any) -> TrainingConfig:
    """The same, checked."""
    return parse_training(plain_config(folder, model, *names, **changes), root=folder)


def result_bytes(pool: Path) -> dict[str, bytes]:
    """Every adapter of a pool."""
    return {path.parent.name: path.read_bytes() for path in sorted(pool.glob("*/adapter_model.safetensors"))}


def wait_for(ready: Callable[[], bool], seconds: float = 240) -> None:
    """Until something is so."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)
