"""Installing an expert relative to a plain copy, and scoring relative to the same engine's base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.install import measure
from benchmarks.scoring import alone, speeds
from benchmarks.shapes import Shape, skeleton
from evoswarm.config import load_config
from evoswarm.weights.expert import read_json
from evoswarm.weights.pool import open_pool
from examples.real.configs import ENGINES, THREADS

PARTICLES = 4


def install(folder: Path) -> dict[str, Any]:
    """Seconds to install an expert, and its speed as a share of a plain copy of the same parameters."""
    found = alone(_install, folder)
    return {"s": found["s"], "of a copy": found["of a copy"]}


def _install(folder: Path) -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    config = load_config(folder / "transformers.yaml")
    expert = open_pool(config.pool, model=config.model).experts[0]
    weights = {name: expert.flat(name).reshape(spec.shape) for name, spec in expert.specs.items()}
    model = skeleton(shape_of(folder / "base"), device="cpu", dtype=torch.float32)
    return measure(model, weights, expert.config, place="auto")


def shape_of(base: Path) -> Shape:
    """The sizes of a base model."""
    config = read_json(base / "config.json")
    return Shape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        inner=config["intermediate_size"],
        vocabulary=config["vocab_size"],
    )


def scoring(folder: Path) -> dict[str, Any]:
    """By engine: examples per second of particles, and that as a share of the base alone."""
    found = {}
    for engine in ENGINES:
        ((line,), _) = alone(speeds, load_config(folder / f"{engine}.yaml"), counts=(PARTICLES,), turns=PARTICLES)
        found[engine] = line
    return found
