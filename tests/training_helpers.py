"""Small trainings of the tiny Llama on a few words."""

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
"""A training that takes long enough to be killed in the middle."""


def write_data(path: Path, *, records: int = 24, seed: int = 0) -> Path:
    """Write questions and answers as messages, one record per line."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdef", k=rng.randint(2, 6))) for _ in range(records)]
    lines = [
        {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": word[::-1]}]}
        for word in words
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def plain_config(folder: Path, model: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """The config of a local training; writes separate data for each name."""
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
    """`plain_config`, validated."""
    return parse_training(plain_config(folder, model, *names, **changes), root=folder)


def result_bytes(pool: Path) -> dict[str, bytes]:
    """The bytes of every adapter in a pool."""
    return {path.parent.name: path.read_bytes() for path in sorted(pool.glob("*/adapter_model.safetensors"))}


def wait_for(ready: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until `ready` returns true."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)
