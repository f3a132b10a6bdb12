"""How many examples per particle make vLLM's merged mode faster than its multi-LoRA mode.

Each mode runs in its own process with one CPU thread, on 8 particles of the toy world and answers of up to 1 and 8
tokens.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.common import close, show
from benchmarks.scoring import VLLM, alone
from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.engine import Engine
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.weights.pool import open_pool

PARTICLES, EXAMPLES, TOKENS, ROUNDS = 8, (1, 4, 8, 16, 32, 64), (1, 8), 3
MODES: dict[str, dict[str, Any]] = {"merged": {}, "multi_lora": {"adapter_mode": "multi_lora", "max_loras": 8}}


def main() -> None:
    """Measure both modes and find the crossover."""
    found = {mode: alone(seconds, settings) for mode, settings in MODES.items()}
    lines = []
    for key in found["merged"]:
        merged, multi_lora = (found[mode][key] for mode in MODES)
        examples, tokens = key
        speeds = {"merged, examples/s": PARTICLES * examples / merged, "multi_lora": PARTICLES * examples / multi_lora}
        lines.append({"examples": examples, "tokens": tokens, **speeds, "merged over multi_lora": multi_lora / merged})
    show(f"{PARTICLES} particles, best of {ROUNDS}", lines)
    slower = [line["examples"] * line["tokens"] for line in lines if line["merged over multi_lora"] < 1]
    close("adapter_mode", ratio=None, goal="none: finds the crossover", crossing=max(slower, default=0), lines=lines)


def seconds(settings: dict[str, Any]) -> dict[tuple[int, int], float]:
    """Seconds to score all particles, by (examples per particle, tokens per answer)."""
    found: dict[tuple[int, int], float] = {}
    engine: Engine | None = None
    for tokens in TOKENS:
        data = target_config("office", algorithm="model_swarms") | {"engine": VLLM | settings}
        data["utility"]["max_new_tokens"] = tokens
        path = data["utility"]["data"]
        for examples in EXAMPLES:
            data["utility"]["data"] = {"path": path, "limit": examples}
            config = parse_config(data, root=world())
            pool = open_pool(config.pool, model=config.model)
            engine = engine or config.engine.start(model=config.model, adapter=pool.adapter)
            worker = Worker(config, pool=pool, engine=engine)
            weights = [{n: e.flat(n).reshape(s.shape) for n, s in e.specs.items()} for e in pool.experts]
            times = []
            for turn in range(ROUNDS + 1):
                start = time.perf_counter()
                for first in range(0, PARTICLES, worker.particles_per_batch):
                    numbers = range(first, first + worker.particles_per_batch)
                    worker.work([Piece((turn, i), weights[i % len(weights)], "validation", 0, True) for i in numbers])
                times.append(time.perf_counter() - start)
            found[examples, tokens] = min(times[1:])
    return found


if __name__ == "__main__":
    main()
