"""A world for the fake engine: six small experts and questions that ask it to repeat a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evoswarm.config import RunConfig
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.engine import Engine, FakeEngine
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors


def specs(width: int) -> list[TensorSpec]:
    """The tensors of an adapter."""
    return [
        TensorSpec(f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight", shape, "F32")
        for layer in range(2)
        for part, shape in (("A", (4, width)), ("B", (width, 4)))
    ]


ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def make_expert(folder: Path, number: int, width: int = 64) -> None:
    """Write an adapter with its own mean."""
    tensors_of = specs(width)
    rng = np.random.default_rng(number)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    shift = rng.normal() * 0.5
    tensors = [(s.name, (rng.standard_normal(s.shape) * 0.3 + shift).astype(np.float32)) for s in tensors_of]
    write_safetensors(folder / "adapter_model.safetensors", tensors_of, tensors)


def make_world(
    folder: Path, *, experts: int = 6, validation: int = 100, test: int = 60, width: int = 64
) -> dict[str, Any]:
    """Write a pool, data and `it.yaml` to `folder`; returns the config, which uses the local backend."""
    for number in range(experts):
        make_expert(folder / "experts" / f"e{number}", number, width)

    def records(start: int, count: int) -> list[dict[str, Any]]:
        return [{"id": i, "question": f"say w{i}", "answer": f"w{i}"} for i in range(start, start + count)]

    data = {"dataset": "echo", "dev": records(0, validation), "test": records(1000, test)}
    (folder / "echo.json").write_text(json.dumps(data))
    config = {
        "name": "echo",
        "model": "no-base",
        "pool": {"experts": "experts", "space": "factors"},
        "search": {"type": "model_swarms", "population": 7, "max_generations": 4},
        "utility": {"type": "exact_match", "data": "echo.json"},
        "engine": {"type": "fake", "batch_size": 32},
        "backend": {"type": "local"},
        "seed": 5,
    }
    (folder / "it.yaml").write_text(yaml.safe_dump(config))
    return config


def echo_config(folder: Path, *overrides: str) -> RunConfig:
    """The validated config of the world in `folder`, which is created if necessary."""
    if not (folder / "it.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_world(folder)
    data = yaml.safe_load((folder / "it.yaml").read_text())
    return parse_config(apply_overrides(data, overrides), root=folder)


def engine_made_by(make: Callable[[], Engine]) -> type[FakeEngine]:
    """A class of engine settings to register under "fake": its engines come from a function."""

    class Made(FakeEngine):
        def start(self, *, model: str, adapter: Mapping[str, Any] | None, tokenizer: Any = None) -> Engine:
            return make()

    return Made


DETERMINISTIC = ("generations.jsonl", "recipe.json", "inputs.json", "best/adapter_model.safetensors")


def result_bytes(run_dir: Path) -> dict[str, bytes]:
    """All files of a run that must not depend on machine, speed or interruptions."""
    names = [*DETERMINISTIC, *(p for f in ("checkpoints", "outcomes", "basis") for p in _files(run_dir, f))]
    return {name: (run_dir / name).read_bytes() for name in names}


def _files(run_dir: Path, folder: str) -> list[str]:
    return sorted(str(path.relative_to(run_dir)) for path in (run_dir / folder).rglob("*") if path.is_file())
