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
from evoswarm.utility import Chat, Choose, OptionScore, Request, Utility
from evoswarm.utility.prompts import delimiter
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
    tokenizer = bench.engines.tokenizer()
    examples: dict[str, Any] = {"path": str(data.path / f"{name}.jsonl")}
    prompt = next(iter(bench.utility.requests("validation"))).prompt
    if tokenizer is not None and isinstance(prompt, Chat):
        template = prompt.template or str(tokenizer.tokenizer.chat_template)
        data.write("template.jinja", template.encode())
        examples |= {
            "chat_template": str(data.path / "template.jinja"),
            "chat_template_kwargs": dict(prompt.template_kwargs),
        }
    config = {
        "model": bench.config.model,
        "tokenizer": None if tokenizer is None else tokenizer.tokenizer.name_or_path,
        "pool": str(folder),
        "experts": {name: {"data": examples}},
        "method": {"type": "lora", "r": shape["r"], "lora_alpha": shape["lora_alpha"], "target_modules": targets},
        "training": settings,
        "threads": bench.config.engine.cpus,
        "seed": seed % 2**32,
        "backend": {"type": "local"},
    }
    train_pool(parse_training(config, root=Path.cwd(), source="compare.trainings"))


def solved_examples(bench: Bench) -> list[Record]:
    """The validation split as training records: each prompt with its correct answer, as token ids.

    Prompts are encoded as the engine encodes them, with its tokenizer, chat template and variables.

    Raises:
        UserError: an example has no known correct answer, or the engine has no tokenizer.
    """
    from evoswarm.experts.encode import RecordEncoder
    from evoswarm.experts.records import Record as Example

    if (tokenizer := bench.engines.tokenizer()) is None:
        raise UserError(f"lora_same_examples: engine.type {bench.config.engine.type} has no tokenizer to train with")
    encoders: dict[Any, RecordEncoder] = {}
    records: list[Record] = []
    for index, request in enumerate(bench.utility.requests("validation")):
        where, answer = f"lora_same_examples: example {index}", _answer(bench.utility, index, request)
        if isinstance(request.prompt, str):
            key, example = None, Example(where, request.prompt, answer)
            settings: dict[str, Any] = {"chat": False}
        else:
            key = request.prompt.template, request.prompt.template_kwargs
            settings = {"template": key[0], "variables": dict(key[1])}
            turns = [*request.prompt.messages, ("assistant", answer)]
            example = Example(where, messages=tuple({"role": role, "content": text} for role, text in turns))
        encoder = encoders.setdefault(key, RecordEncoder(tokenizer.tokenizer, **settings))
        ids, labels = encoder.row(example)
        records.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return records


def _answer(utility: Utility, index: int, request: Request) -> str:
    """The correct answer as the continuation of a prompt."""
    known = _right(utility, index, request) if isinstance(request, Choose) else request.draft
    if known is not None:
        return known
    try:
        return delimiter(request.prompt) + read_references(utility.example("validation", index).get("answer"))[0]
    except ValueError:
        raise UserError(f"lora_same_examples: example {index} has no correct answer to train on") from None


def _right(utility: Utility, index: int, request: Choose) -> str | None:
    """The option that the utility scores as correct."""
    for k, option in enumerate(request.options):
        scores = [OptionScore(0.0 if i == k else -99.0, 1) for i in range(len(request.options))]
        if utility.outcomes("validation", [index], [scores])[0].score == 1.0:
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
