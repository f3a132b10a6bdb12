"""Run configs for the toy world's targets."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evoswarm.toy import world
from evoswarm.toy.skills import SKILLS, draw
from evoswarm.toy.targets import TARGETS, make_target


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


def comparison(data: Path) -> dict[str, Any]:
    """The config of the comparison on all targets, in product space, with the data of `write_data`."""
    first, *_ = TARGETS
    config = target_config(first, algorithm="model_swarms")
    del config["utility"], config["search"], config["name"]
    utilities = {
        name: target_config(name, algorithm="model_swarms")["utility"] | {"data": str(data / f"{name}-{{seed}}.json")}
        for name in TARGETS
    }
    training = {name: str(data / f"{name}.jsonl") for name in SKILLS}
    section = {"budget": 40, "targets": utilities, "training": training, "trainings": TRAININGS}
    return config | {"pool": {"experts": config["pool"], "space": "product"}, "compare": section}


def write_data(folder: Path, *, seeds: Sequence[int]) -> None:
    """Write the questions of every target and seed, and the training data of every expert.

    Training data are JSONL files of questions and answers. The bytes are the same every time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TARGETS:
        for seed in seeds:
            text = json.dumps(make_target(name, seed=seed), indent=1)
            (folder / f"{name}-{seed}.json").write_text(text + "\n", encoding="utf-8")
    for name, skill in SKILLS.items():
        examples = draw(skill, random.Random(f"training {name}"), TRAINING_EXAMPLES, evaluation=False)
        lines = [json.dumps({"question": example.question, "answer": example.answer}) for example in examples]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
