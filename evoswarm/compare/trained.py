"""Experts trained with gradients by `evoswarm experts train`, as methods of a comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evoswarm.compare.bench import Bench, Candidate, Tally
from evoswarm.compare.routing import training_records
from evoswarm.config.load import parse_training
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.utility import Choose, OptionScore, Utility
from evoswarm.utility.references import read_references
from evoswarm.weights.expert import open_expert
from evoswarm.weights.merge import lora_modules

Record = dict[str, Any]


def trained_expert(tally: Tally, name: str, records: Sequence[Record], *, seed: int, settings: Record) -> Candidate:
    """Train one LoRA adapter with the pool's settings; the seconds count for the method.

    `settings` are those under `training` of `evoswarm experts train`. The adapter is kept in the bench's folder.
    """
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    key = hashlib.sha256(json.dumps([text, seed, settings]).encode()).hexdigest()[:12]
    expert = f"{name}-{seed}-{key}"
    _, seconds = tally.bench.remember(f"trained {expert}", partial(_train, tally.bench, expert, text, seed, settings))
    tally.charge(0, seconds)
    return Candidate(
        expert, make=lambda: tally.bench.pool.adopt(open_expert(tally.bench.directory.path / "trained" / expert))
    )


def _train(bench: Bench, name: str, text: str, seed: int, settings: Record) -> None:
    from evoswarm.experts.pool import train_pool

    folder = bench.directory.path / "trained"
    data = RunDirectory(folder / ".data")
    data.write(f"{name}.jsonl", text.encode("utf-8", errors="replace"))
    shape = bench.pool.experts[0].config
    targets = sorted({module.rpartition(".")[2] for module in lora_modules({s.name: s for s in bench.pool.layout})})
    config = {
        "model": bench.config.model,
        "pool": str(folder),
        "experts": {name: str(data.path / f"{name}.jsonl")},
        "method": {"type": "lora", "r": shape["r"], "lora_alpha": shape["lora_alpha"], "target_modules": targets},
        "training": settings,
        "threads": bench.config.engine.cpus,
        "seed": seed % 2**32,
        "backend": {"type": "local"},
    }
    train_pool(parse_training(config, root=Path.cwd(), source="compare.trainings"))


def solved_examples(bench: Bench) -> list[Record]:
    """The validation split as training records: each prompt with its correct answer.

    Raises:
        UserError: an example has no known correct answer.
    """
    utility = bench.utility
    records: list[Record] = []
    for index, request in enumerate(utility.requests("validation")):
        answer = _right(utility, index, request) if isinstance(request, Choose) else request.draft
        answer = answer if answer is not None else utility.example("validation", index).get("answer")
        try:
            answer = answer if isinstance(answer, str) else read_references(answer)[0]
        except ValueError:
            raise UserError(f"lora_same_examples: example {index} has no correct answer to train on") from None
        if isinstance(request.prompt, str):
            records.append({"prompt": request.prompt, "completion": answer})
        else:
            turns = [{"role": role, "content": content} for role, content in request.prompt.messages]
            records.append({"messages": [*turns, {"role": "assistant", "content": answer}]})
    return records


def _right(utility: Utility, index: int, request: Choose) -> str | None:
    """The option that the utility scores as correct."""
    for k, option in enumerate(request.options):
        scores = [OptionScore(0.0 if i == k else -99.0, 1) for i in range(len(request.options))]
        if utility.outcome("validation", index, scores).score == 1.0:
            return option
    return None


def merged_data(paths: Sequence[Path]) -> list[Record]:
    """All records of the experts' training files, interleaved so that no file comes last.

    Raises:
        UserError: a file is missing or damaged.
    """
    files = [training_records(path) for path in paths]
    longest = max(map(len, files))
    return [records[i] for i in range(longest) for records in files if i < len(records)]
