"""Work that a run avoids: equal rows are scored once, and answers are verified in one pass. Same trajectory.

Toy targets with the searches in turn, 8 particles x 6 generations. `passes` are examples times forward passes through
the model, those with over those without: each token that is generated is a pass, and without shared prompts so is each
option; a verified answer takes one. `seconds` are the engine's, of the two runs after each other.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import evoswarm
from benchmarks.common import close, show
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.engine.transformers import HfEngine
from evoswarm.loop.directory import read_lines
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS
from evoswarm.utility.types import OptionScore, Prompt

SEARCHES = ("model_swarms", "genome")
WAYS = {"with": [], "without": ["engine.verify=false"]}
Scores = tuple[OptionScore, ...]
SETTINGS = ["search.population=8", "search.max_generations=6", "search.patience=null", "backend={type: local}"]


class Passes:
    """Counts the example-passes through the model: B of a forward pass over a batch of B examples."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        self.count += len(inputs["input_ids"])


def main() -> None:
    """Run every target with and without, and compare."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as processes:
        lines = list(processes.map(measure, TARGETS, itertools.cycle(SEARCHES)))
    show("share of the examples that equal rows saved, and passes through the model against those without", lines)
    ratio = sum(line["passes"] for line in lines) / len(lines)
    close("saved_work", ratio=round(ratio, 3), goal="at most 0.5 of the passes, same trajectory", lines=lines)


def measure(target: str, search: str) -> dict[str, Any]:
    """One target and search with and without, in a process of its own."""
    passes, start, together = Passes(), HfEngine.__init__, HfEngine.loglikelihood

    def counted(self: HfEngine, *args: Any, **settings: Any) -> None:
        start(self, *args, **settings)
        self.model.register_forward_pre_hook(passes, with_kwargs=True)

    def one_by_one(self: HfEngine, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[Scores]:
        columns = [together(self, prompts, [[option] for option in column]) for column in zip(*options, strict=True)]
        return [tuple(score for (score,) in row) for row in zip(*columns, strict=True)]

    HfEngine.__init__ = counted  # type: ignore[method-assign]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, overrides in WAYS.items():
            HfEngine.loglikelihood = together if way == "with" else one_by_one  # type: ignore[method-assign]
            base = target_config(target, algorithm="random_search") | {"search": {"type": search}}
            names = [f"output={folder}", f"name={way}", "engine.batch_size=20"]
            config = parse_config(apply_overrides(base, [*SETTINGS, *overrides, *names]), root=Path(folder))
            passes.count, seen = 0, []
            summary = evoswarm.run(config, on_generation=lambda e, s=seen: s.append((passes.count, e)))
            rows = [path.read_bytes() for path in sorted(config.run_dir.glob("outcomes/*.rows.safetensors"))]
            finals = read_lines(config.run_dir / "outcomes/final.jsonl")
            # The finalists need every prediction, so nothing is saved there.
            count, scored = seen[-1][0], sum(event["examples"] for _, event in seen)
            seconds = sum(event["seconds"]["scoring"] for _, event in seen)
            found[way] = count, scored, seconds, summary["examples_reused"], (rows, finals)
    (short, scored, quick, reused, one), (long, _, slow, _, other) = found["with"], found["without"]
    assert one == other, "the trajectories differ"
    every = scored + reused
    full = every / scored  # equal rows are scored once in both: add what that saves
    return {
        "target": target,
        "search": search,
        "examples": every,
        "equal rows": reused / every,
        "passes": short / (long * full),
        "seconds": quick / (slow * full),
    }


if __name__ == "__main__":
    main()
