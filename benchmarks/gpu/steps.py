"""Part 4: seconds of a decode step from 8 to 512 sequences, and answers that change with the shape of the batch."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu.engine import RANK, release
from benchmarks.gpu.stage import Stage
from benchmarks.install import synchronize
from evoswarm.engine.transformers import HfEngine
from evoswarm.utility.types import Prompt

SEQUENCES = (8, 16, 32, 64, 128, 200, 256, 512)
FEW, MANY = 4, 20
"""Tokens of two answers, whose difference in time is that of the steps alone."""
BATCHES = (16, 64, 128)


def measure(stage: Stage) -> dict[str, Any]:
    """Milliseconds per step by sequences, and the share of answers that batch shapes change."""
    sizes, compared = ((2, 4), (1, 4)) if stage.tiny else (SEQUENCES, BATCHES)
    engine = stage.engine(RANK)
    engine.install(stage.adapter(RANK, 1))
    prompts = stage.prompts(max(sizes))
    engine.generate(prompts[: sizes[0]], max_new_tokens=2)
    step = {count: seconds_of_step(engine, prompts[:count]) for count in sizes}
    some = prompts[: max(compared)]
    whole, again = (in_batches(engine, some, len(some)) for _ in range(2))
    others = {size: in_batches(engine, some, size) for size in compared if size < len(some)}
    release(engine)
    return {
        "ms per step": {count: 1000 * seconds for count, seconds in step.items()},
        "tokens/s": {count: count / seconds for count, seconds in step.items()},
        "answers": len(whole),
        "different answers": len(set(whole)),
        "changed when repeated": changed(whole, again),
        "changed": {f"batches of {size}, not {len(some)}": changed(whole, other) for size, other in others.items()},
    }


def changed(some: list[str], others: list[str]) -> int:
    """How many answers differ."""
    return sum(one != other for one, other in zip(some, others, strict=True))


def seconds_of_step(engine: HfEngine, prompts: list[Prompt]) -> float:
    """Seconds of one decode step of these sequences."""
    seconds = []
    for tokens in (FEW, MANY):
        synchronize()
        start = time.perf_counter()
        engine.generate(prompts, max_new_tokens=tokens)
        synchronize()
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / (MANY - FEW)


def in_batches(engine: HfEngine, prompts: list[Prompt], size: int) -> list[str]:
    """Answers of all prompts, so many at a time."""
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return [answer for part in parts for answer in engine.generate(part, max_new_tokens=MANY)]
