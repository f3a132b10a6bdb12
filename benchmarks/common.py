"""Output and test pools for all benchmarks."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from evoswarm.weights.tensorfile import TensorSpec, write_safetensors


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of the results."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:,.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console(highlight=False)
    console.width = max(console.width, 160)
    console.print(table)


def close(name: str, *, ratio: float | None, goal: str, **figures: Any) -> None:
    """Print the last line: one JSON object."""
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(json.dumps({"name": name, "ratio": ratio, "goal": goal, "machine": machine, **figures}))


def make_lora_pool(
    folder: Path, *, experts: int, parameters: int, rank: int = 8, modules: int = 20, shift: float = 0.0
) -> None:
    """Write random LoRA adapters with about `parameters` parameters each; `shift` separates their means."""
    width = parameters // (modules * 2 * rank)
    specs = [
        TensorSpec(f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{part}.weight", shape, "F32")
        for i in range(modules)
        for part, shape in (("A", (rank, width)), ("B", (width, rank)))
    ]
    for number in range(experts):
        place = folder / f"expert-{number:03}"
        place.mkdir(parents=True)
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj"]}
        (place / "adapter_config.json").write_text(json.dumps(config))
        rng = np.random.default_rng(number)
        mean = np.float32(shift * rng.standard_normal())
        tensors = ((spec.name, rng.standard_normal(spec.shape, dtype=np.float32) + mean) for spec in specs)
        write_safetensors(place / "adapter_model.safetensors", specs, tensors)
