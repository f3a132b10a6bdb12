"""WeGeFT versus LoRA on toy skills with equal parameters and steps; then WeGeFT pools evolved in both spaces.

Both adapt the same modules with the trainer of `evoswarm experts train`. Each method uses its best learning rate from a
common grid, chosen on separate questions. All results are kept in a folder, so that an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import evoswarm
from benchmarks.common import close, show
from evoswarm.config.load import parse_config, parse_training
from evoswarm.experts.export import export
from evoswarm.experts.pool import train_pool
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.toy.make import load
from evoswarm.toy.skills import SKILLS, draw
from evoswarm.toy.train import accuracy

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "r": 8, "lora_alpha": 16, "target_modules": TARGETS},
    "wegeft": {"type": "wegeft", "r": 24, "wegeft_alpha": 48, "target_modules": TARGETS},
}
"""52,224 parameters each: WeGeFT's rank is 3 times as large, but 3 layers share one pair."""
RATES = (4e-3, 16e-3, 64e-3)
BATCH, QUESTIONS = 64, 400
BASE = world() / "base"


def main() -> None:
    """Train, measure, and evolve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/wegeft"))
    parser.add_argument("--skills", default="rev,sort,next,rot")
    parser.add_argument("--target", default="letters")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pools", type=int, default=2, help="number of seeds for the comparison of spaces")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--memory", help="only train this method once, and print CPU seconds and peak memory in MB")
    arguments = parser.parse_args()
    skills = arguments.skills.split(",")
    if arguments.memory:
        return _peak(arguments.folder, arguments.memory, skills[0], arguments.steps)
    rates = {method: _best_rate(arguments.folder, method, skills[:1], arguments.steps) for method in METHODS}
    lines = [
        _line(arguments.folder, method, skills, rates[method], arguments.seeds, arguments.steps) for method in METHODS
    ]
    show(f"accuracy on {QUESTIONS} held-out questions per skill, mean of {arguments.seeds} seeds", lines)
    spaces = [line for seed in range(arguments.pools) for line in _evolve(arguments, rates["wegeft"], seed)]
    show(f"test utility on {arguments.target} of a pool of {len(skills)} WeGeFT experts", spaces)
    close("wegeft", ratio=None, goal="none: compares the methods", lines=lines, spaces=spaces)


def _train(folder: Path, method: str, skill: str, rate: float, seed: int, steps: int) -> tuple[Path, dict[str, Any]]:
    """Train one expert; return its folder and record."""
    name = f"{method}-{rate:g}-{seed}"
    data = folder / "data" / f"{skill}-{seed}.jsonl"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        examples = draw(SKILLS[skill], random.Random(f"{skill} {seed}"), BATCH * steps, evaluation=False)
        turns = ([("user", e.question), ("assistant", e.answer)] for e in examples)
        messages = ({"messages": [{"role": r, "content": c} for r, c in pair]} for pair in turns)
        data.write_text("".join(json.dumps(record) + "\n" for record in messages), encoding="utf-8")
    config = {
        "model": str(BASE),
        "pool": str(folder.resolve() / name),
        "experts": {skill: str(data.resolve())},
        "method": METHODS[method],
        "save": "native",
        "training": {"learning_rate": rate, "batch_size": BATCH, "checkpoint_steps": 10_000},
        "seed": seed,
        "backend": {"type": "local"},
    }
    return folder / name / skill, train_pool(parse_training(config, root=Path.cwd()))[skill]


def _accuracy(expert: Path, skill: str, *, purpose: str) -> float:
    import evoswarm.experts.wegeft  # noqa: F401  registers WeGeFT with peft

    model, tokenizer = load(BASE, expert)
    questions = draw(SKILLS[skill], random.Random(f"{purpose} {skill}"), QUESTIONS, evaluation=True)
    return accuracy(model, tokenizer, questions)  # type: ignore[arg-type]


def _best_rate(folder: Path, method: str, skills: list[str], steps: int) -> float:
    found = {}
    for rate in RATES:
        trained = [(_train(folder, method, skill, rate, 1000, steps)[0], skill) for skill in skills]
        found[rate] = np.mean([_accuracy(expert, skill, purpose="rates") for expert, skill in trained])
    print(f"{method}: " + ", ".join(f"{rate:g} {value:.3f}" for rate, value in found.items()), flush=True)
    return max(found, key=lambda rate: found[rate])


def _line(folder: Path, method: str, skills: list[str], rate: float, seeds: int, steps: int) -> dict[str, Any]:
    values: dict[str, list[float]] = {skill: [] for skill in skills}
    losses, parameters = [], 0
    for seed in range(seeds):
        for skill in skills:
            expert, record = _train(folder, method, skill, rate, seed, steps)
            values[skill].append(_accuracy(expert, skill, purpose="test"))
            losses.append(record["loss"]["last_tenth"])
            parameters = record["trained_parameters"]
    means = np.mean([values[skill] for skill in skills], axis=0)
    command = [sys.executable, "-m", "benchmarks.wegeft", "--memory", method, "--folder", str(folder)]
    peak = subprocess.run([*command, "--steps", str(steps), "--skills", skills[0]], capture_output=True, text=True)
    return {
        "method": method,
        "rate": f"{rate:g}",
        **{skill: float(np.mean(values[skill])) for skill in skills},
        "mean": float(means.mean()),
        "sd over seeds": float(means.std(ddof=1)) if seeds > 1 else 0.0,
        "loss": float(np.mean(losses)),
        "parameters": parameters,
        "CPU seconds": float(peak.stdout.split()[-2]),
        "peak MB": int(peak.stdout.split()[-1]),
    }


def _peak(folder: Path, method: str, skill: str, steps: int) -> None:
    """Print the CPU seconds of one training and this process's peak memory in MB."""
    import resource
    import shutil
    import time

    place = folder / "memory"
    shutil.rmtree(place, ignore_errors=True)
    _train(place, method, skill, RATES[0], 1000, 2)  # warm-up: one-time loading and compilation
    start = time.process_time()
    _train(place, method, skill, RATES[0], 0, steps)
    print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _evolve(arguments: argparse.Namespace, rate: float, seed: int) -> list[dict[str, Any]]:
    """Evolve the same pool as phi and psi and as the equivalent LoRA."""
    native = arguments.folder / f"wegeft-{rate:g}-{seed}"
    lora = arguments.folder / f"lora-of-wegeft-{rate:g}-{seed}"
    if not lora.exists():
        export(native, lora, model=str(BASE))
    lines = []
    for algorithm in ("model_swarms", "genome_plus"):
        for space, pool in {"phi and psi": native, "generated LoRA": lora}.items():
            data = target_config(arguments.target, algorithm=algorithm) | {
                "name": f"{algorithm}-{space.split()[0]}-{seed}",
                "pool": str(pool.resolve()),
                "output": str(arguments.folder.resolve() / "runs"),
                "seed": seed,
                "backend": {"type": "local"},
            }
            data["search"] |= {"population": 10, "max_generations": 8}
            data["search"] |= {"max_population": 10} if algorithm == "genome_plus" else {}
            summary = evoswarm.run(parse_config(data, root=Path.cwd()))
            lines.append(
                {
                    "algorithm": algorithm,
                    "space": space,
                    "seed": seed,
                    "best expert": summary["initial"]["test"],
                    "winner (validation)": summary["best"]["validation"],
                    "winner": summary["best"]["test"],
                    "moving s": summary["seconds"]["moving"],
                    "expert kB": sum(f.stat().st_size for f in pool.glob("*/*.safetensors"))
                    / 1000
                    / len(list(pool.glob("*/*.safetensors"))),
                }
            )
    return lines


if __name__ == "__main__":
    main()
