"""`evoswarm validate` on pools of ten experts of a 7B model, from the start of the process to its end."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from transformers import Qwen2Config

from benchmarks.common import close, show
from benchmarks.sparse import save_adapter, save_model
from evoswarm.toy.config import target_config

EXPERTS, RANK, ROUNDS, GOAL = 10, 16, 3, 5.0
SHAPE = Qwen2Config(
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    vocab_size=152064,
)
"""Qwen2.5-7B."""


def main() -> None:
    """Measure adapters and full checkpoints; the best round counts."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = save_model(SHAPE, place / "base")
        for i in range(EXPERTS):
            save_adapter(SHAPE, place / "adapters" / f"e{i}", rank=RANK, base=base, seed=i)
            save_model(SHAPE, place / "checkpoints" / f"e{i}", seed=100 * (i + 1))
        for kind in ("adapters", "checkpoints"):
            config = target_config("office", algorithm="model_swarms")
            config |= {"model": str(base), "pool": str(place / kind), "output": str(place / "runs")}
            config |= {"backend": {"type": "local"}}  # several engines may be too large for this machine
            file = place / f"{kind}.yaml"
            file.write_text(yaml.safe_dump(config))
            wall, cpu = map(min, zip(*(_seconds(file) for _ in range(ROUNDS)), strict=True))
            size = sum(path.stat().st_size for path in (place / kind).rglob("*.safetensors"))
            rows.append({"pool": f"{EXPERTS} {kind}", "GB": size / 1e9, "seconds": wall, "CPU seconds": cpu})
    show("validate", rows)
    slowest = max(row["seconds"] for row in rows)
    close("validate", ratio=round(slowest / GOAL, 3), goal=f"under {GOAL:g} s without reading weights", rows=rows)


def _seconds(config: Path) -> tuple[float, float]:
    """Seconds from start to end, and CPU seconds, which depend less on what else the machine does."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "evoswarm", "validate", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    assert json.loads(done.stdout)["valid"]
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
