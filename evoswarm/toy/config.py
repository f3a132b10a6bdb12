"""Run configs for the toy world's targets."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from evoswarm.toy import world
from evoswarm.toy.skills import SKILLS, draw
from evoswarm.toy.targets import TARGETS


def target_config(target: str, *, algorithm: str) -> dict[str, Any]:
    """The config of a run on one target, with the algorithm's default settings."""
    folder = world()
    utility: dict[str, Any] = {"data": str(folder / "targets" / f"{target}.json"), "prompt": {"chat_template": True}}
    if TARGETS[target].multiple_choice:
        utility |= {"type": "multiple_choice", "options": "texts"}
        batch_size = 200  # four options each
    else:
        utility |= {"type": "exact_match", "max_new_tokens": 8}
        batch_size = 50
    return {
        "name": f"{target}-{algorithm}",
        "model": str(folder / "base"),
        "pool": str(folder / "experts"),
        "search": {"type": algorithm},
        "utility": utility,
        "engine": {"batch_size": batch_size},
    }


TRAINING_EXAMPLES = 500
"""Training examples per expert, freshly drawn from the questions that are not held out."""

TRAININGS = {"data_merge": {"learning_rate": 2e-3}, "lora_same_examples": {"learning_rate": 2e-3, "epochs": 10}}
"""The toy base is small: it learns nothing at the learning rates of large models."""


def comparison(targets: list[str] | None, *, folder: Path) -> dict[str, Any]:
    """The comparison's config for some targets (default: all). Writes the training data to `folder`."""
    names = targets or list(TARGETS)
    config = target_config(names[0], algorithm="model_swarms")
    del config["utility"], config["search"]
    utilities = {name: target_config(name, algorithm="model_swarms")["utility"] for name in names}
    section = {"targets": utilities, "training": write_training(folder), "trainings": TRAININGS}
    return config | {"name": "toy", "output": str(folder.parent), "compare": section}


def write_training(folder: Path) -> dict[str, str]:
    """Write one JSONL file of questions and answers per expert; the bytes are the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, skill in SKILLS.items():
        examples = draw(skill, random.Random(f"training {name}"), TRAINING_EXAMPLES, evaluation=False)
        paths[name] = str(folder / f"{name}.jsonl")
        lines = [json.dumps({"question": example.question, "answer": example.answer}) for example in examples]
        Path(paths[name]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths
