"""Part 3, the transformers engine: adapters in turn and the base again, by fingerprints of all parameters; peak memory,
alone and under a 24 GB cap.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.stage import Stage
from evoswarm.engine.transformers import HfEngine

RANK = 16
CAP = 24e9
PROMPTS, TOKENS = 200, 16


def measure(stage: Stage) -> dict[str, Any]:
    """Without a cap, then under it with each place for the pristine copies."""
    adapters = {name: stage.adapter(RANK, seed) for name, seed in (("A", 1), ("B", 2))}
    found: dict[str, Any] = {"no cap": with_engine(stage, adapters, "auto")}
    for place in ("auto", "host"):
        with cap(CAP):
            found[f"24 GB, {place}"] = with_engine(stage, adapters, place)
    runs = list(found.values())
    found["same answers in all"] = all(run.pop("answers") == runs[0]["answers"] for run in runs[1:])
    runs[0].pop("answers")
    return found


def with_engine(stage: Stage, adapters: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What one engine shows."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    engine = stage.engine(RANK, pristine=place)
    found: dict[str, Any] = {"start, s": time.perf_counter() - start}
    seen: dict[str, set[str]] = {}
    for name in ("base", "A", "B", "A", "base"):
        start = time.perf_counter()
        engine.install(adapters.get(name))
        found[f"install {name}, s"] = time.perf_counter() - start
        seen.setdefault(name, set()).add(fingerprint(engine.model))
    found["same after every return"] = all(len(prints) == 1 for prints in seen.values())
    found["all different"] = len(set.union(*seen.values())) == len(seen)
    engine.install(adapters["A"])
    start = time.perf_counter()
    found["answers"] = engine.generate(stage.prompts(8 if stage.tiny else PROMPTS), max_new_tokens=TOKENS)
    found["generate, s"] = time.perf_counter() - start
    found["pristine, GB"] = {device: size / 1e9 for device, size in engine.pristine_places.items()}
    found |= peak()
    release(engine)
    return found


def fingerprint(model: nn.Module) -> str:
    """64 bits that depend on every bit of every parameter and on its place, computed on the model's device."""
    total = 0
    for number, parameter in enumerate(model.parameters()):
        words = parameter.detach().reshape(-1).view(torch.int16)
        for start in range(0, len(words), 1 << 24):
            part = words[start : start + (1 << 24)].long()
            places = torch.arange(start, start + len(part), device=part.device) * 2_654_435_761 + 2 * number + 1
            total = (total * 31 + int((part * (places | 1)).sum())) % (1 << 64)
    return f"{total:016x}"


def peak() -> dict[str, float]:
    """The most memory of the GPU that tensors took."""
    return {"peak, GB": torch.cuda.max_memory_allocated() / 1e9} if torch.cuda.is_available() else {}


def release(engine: HfEngine) -> None:
    """Give the engine's memory back."""
    engine.close()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def cap(size: float):  # type: ignore[no-untyped-def]
    """Lets this process have no more of the GPU's memory."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.set_per_process_memory_fraction(min(1.0, size / torch.cuda.mem_get_info()[1]))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
