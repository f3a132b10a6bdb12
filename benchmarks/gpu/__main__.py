"""Runs the parts, and prints and saves each one's figures as soon as it ends."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.gpu import engine, graphs, installing, moving, run, steps
from benchmarks.gpu.stage import Stage

Part = Callable[[Stage], dict[str, Any]]
PARTS: dict[str, Part] = {
    "install": installing.measure,
    "moving": moving.measure,
    "engine": engine.measure,
    "steps": steps.measure,
    "graphs": graphs.measure,
    "run": run.measure,
}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the benchmark itself")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="the figures, saved after each part")
    given = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    print(json.dumps(report["machine"]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), given.tiny)
        for name in given.parts:
            report[name] = timed(PARTS[name], stage)
            given.output.write_text(json.dumps(report, indent=1))
            print(name, json.dumps(report[name]), flush=True)


def timed(part: Part, stage: Stage) -> dict[str, Any]:
    """A part's figures with the seconds that it took; its error, if it fails, so that the others still run."""
    start = time.perf_counter()
    try:
        figures = part(stage)
    except Exception:
        figures = {"error": traceback.format_exc().splitlines()[-12:]}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return figures | {"seconds": round(time.perf_counter() - start, 1)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else "no GPU",
        "memory, GB": torch.cuda.mem_get_info()[1] / 1e9 if cuda else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
