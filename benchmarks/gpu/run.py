"""Part 6: a whole run of 40 particles x 200 prompts, through the command line, on the local backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.gpu.engine import RANK
from benchmarks.gpu.stage import Stage

PARTICLES, PROMPTS, TOKENS = 40, 200, 8
LIMIT = 150
"""Seconds after which the run is stopped."""


def measure(stage: Stage) -> dict[str, Any]:
    """Seconds of a run of one generation after the initial one, and what it notes about each."""
    particles, prompts = (4, 4) if stage.tiny else (PARTICLES, PROMPTS)
    config = {
        "name": "gpu",
        "model": str(stage.base),
        "pool": {"experts": str(stage.pool(RANK)), "check_values": False},
        "utility": {"type": "exact_match", "data": str(stage.data(prompts)), "max_new_tokens": TOKENS},
        "engine": {"type": "transformers", "dtype": "bfloat16", "batch_size": 200, "threads": os.cpu_count()},
        "search": {"type": "model_swarms", "population": particles, "max_generations": 1},
        "backend": {"type": "local"},
        "output": str(stage.folder / "runs"),
    }
    path = stage.folder / "run.yaml"
    path.write_text(json.dumps(config))
    start = time.perf_counter()
    command = [sys.executable, "-m", "evoswarm", "run", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    seconds = time.perf_counter() - start
    if done.returncode:
        return {"error": (done.stderr or done.stdout).splitlines()[-8:]}
    summary, folder = json.loads(done.stdout), stage.folder / "runs" / "gpu"
    return {
        "wall, s": seconds,
        "new tokens": TOKENS,
        "evaluations": summary["evaluations"],
        "examples": summary["examples_scored"],
        "timings": [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()],
    }
