"""The configs of the example, which it writes as YAML files, so that each command can also be run by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from examples.real.data import SKILLS

ENGINES: dict[str, dict[str, Any]] = {
    "transformers": {"type": "transformers"},
    "vllm": {
        "type": "vllm",
        "adapter_mode": "merged",
        "args": {"enforce_eager": True},
    },  # compiling takes longer than a run
}
THREADS = 2


@dataclass(frozen=True)
class Budget:
    """The size of the example.

    Attributes:
        steps: of each training.
        validation: examples of the target's validation split.
        test: of its test split.
        population: particles.
        generations: after the initial one.
    """

    steps: int = 20
    validation: int = 48
    test: int = 96
    population: int = 8
    generations: int = 3


def write_configs(folder: Path, budget: Budget) -> None:
    """Write every config to the folder."""
    found = {"experts": training(budget), "skills": skills(), "compare": comparison()}
    found |= {name: run(name, budget) for name in ENGINES}
    for name, config in found.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def training(budget: Budget) -> dict[str, Any]:
    """For `evoswarm experts train`."""
    return {
        "model": "./base",
        "pool": "experts",
        "experts": {name: f"data/{name}.jsonl" for name in SKILLS},
        "method": {"type": "lora", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "training": {"max_steps": budget.steps, "batch_size": 8, "learning_rate": 1.5e-3, "bf16": False},
        "dtype": "float32",
        "threads": THREADS,
        "backend": {"type": "local"},
    }


def skills() -> dict[str, Any]:
    """For `evoswarm inspect --on`: every skill as a task of its own."""
    tasks = {name: answers(f"data/{name}.json", test=None) for name in SKILLS}
    return _common("transformers") | {"name": "skills", "utility": {"type": "multi_task", "tasks": tasks}}


def run(engine: str, budget: Budget) -> dict[str, Any]:
    """For `evoswarm run`."""
    search = {
        "type": "model_swarms",
        "population": budget.population,
        "max_generations": budget.generations,
        "ensemble_size": 1,
    }
    return _common(engine) | {"name": engine, "search": search, "utility": answers("data/target.json")}


def comparison() -> dict[str, Any]:
    """For `evoswarm compare`: the merges that need few evaluations."""
    section = {"methods": ["uniform_soup", "greedy_soup"], "seeds": [0], "budget": 2 * len(SKILLS)}
    return _common("transformers") | {"name": "soups", "utility": answers("data/target.json"), "compare": section}


def answers(data: str, **changes: Any) -> dict[str, Any]:
    """The utility: the share of examples whose first word is right; the base model keeps writing after it."""
    return {"type": "exact_match", "data": {"path": data} | changes, "max_new_tokens": 5, "extract": r"^\s*([\w-]+)"}


def _common(engine: str) -> dict[str, Any]:
    return {
        "model": "./base",
        "pool": "experts",
        "engine": ENGINES[engine] | {"dtype": "float32", "threads": THREADS, "batch_size": 64},
        "backend": {"type": "local"},
        "output": "runs",
        "seed": 0,
    }
