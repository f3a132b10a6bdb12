"""Part 4: seconds of a decode step from 8 to 512 sequences; answers and scores that change with the batch's shape."""

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
    for count in sizes[:2]:  # warm up
        engine.generate(prompts[:count], max_new_tokens=2)
    step = {count: seconds_of_step(engine, prompts[:count]) for count in sizes}
    some = prompts[: max(compared)]
    whole, again = (in_batches(engine, some, len(some)) for _ in range(2))
    others = {size: in_batches(engine, some, size) for size in compared if size < len(some)}
    scores = {size: scored(engine, some, size) for size in compared}
    release(engine)
    return {
        "ms per step": {count: 1000 * seconds for count, seconds in step.items()},
        "tokens/s": {count: count / seconds for count, seconds in step.items()},
        "answers": len(whole),
        "different answers": len(set(whole)),
        "changed when repeated": changed(whole, again),
        "changed": {f"batches of {size}, not {len(some)}": changed(whole, other) for size, other in others.items()},
        "scores": {f"batches of {size}": differences(scores[max(compared)], scores[size]) for size in compared[:-1]},
    }


def scored(engine: HfEngine, prompts: list[Prompt], size: int) -> list[float]:
    """Log-probability of one option of each prompt, so many prompts at a time."""
    engine.batch_size = size
    return [score.logprob for (score,) in engine.loglikelihood(prompts, [["next"]] * len(prompts))]


def differences(some: list[float], others: list[float]) -> dict[str, float]:
    """How many scores differ, and by how much at most."""
    gaps = [abs(one - other) for one, other in zip(some, others, strict=True)]
    return {"changed": sum(gap > 0 for gap in gaps), "most": max(gaps)}


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
