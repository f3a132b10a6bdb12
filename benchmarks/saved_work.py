"""Work that a run need not do: early stops, equal rows scored once, answers verified in one pass. Same trajectory.

Toy targets, 8 particles x 10 generations; examples that an engine scored, and tokens that it had to compute in steps
of their own (each token that is generated is a pass through the model; a verified answer takes one).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import evoswarm
from benchmarks.common import close, show
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.engine.transformers import HfEngine
from evoswarm.loop.directory import read_lines
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS

SEARCHES = ("model_swarms", "genome", "random_search")
WAYS = {"with": [], "without": ["bounded_evaluation=false", "engine.verify=false"]}
SETTINGS = ["search.population=8", "search.max_generations=10", "search.patience=null", "backend={type: local}"]


class Passes:
    """Counts the example-passes through the model: B of a forward pass over a batch of B examples."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        self.count += len(inputs["input_ids"])


def main() -> None:
    """Run every target and search with and without, and compare."""
    lines, passes = [], Passes()
    start = HfEngine.__init__

    def counted(self: HfEngine, *args: Any, **settings: Any) -> None:
        start(self, *args, **settings)
        self.model.register_forward_pre_hook(passes, with_kwargs=True)

    HfEngine.__init__ = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            for search in SEARCHES:
                found = {}
                for way, overrides in WAYS.items():
                    base = target_config(target, algorithm="random_search") | {"search": {"type": search}}
                    more = [
                        *SETTINGS,
                        *overrides,
                        f"output={folder}",
                        f"name={target}-{search}-{way}",
                        "engine.batch_size=20",
                    ]
                    config = parse_config(apply_overrides(base, more), root=Path(folder))
                    passes.count = 0
                    summary = evoswarm.run(config)
                    rows = [path.read_bytes() for path in sorted(config.run_dir.glob("outcomes/*.rows.safetensors"))]
                    finals = read_lines(config.run_dir / "outcomes/final.jsonl")
                    found[way] = (summary, passes.count, rows, finals)
                (few, short, rows, finals), (plain, passed, other, others) = found["with"], found["without"]
                assert rows == other and finals == others, "the trajectories differ"
                spared = few["examples_spared"]
                every = few["examples_scored"] + sum(spared.values())
                # Equal rows are never scored twice, so what that spares is counted in.
                long = passed * every / plain["examples_scored"]
                lines.append(
                    {
                        "target": target,
                        "search": search,
                        "examples": every,
                        "stopped early": spared["bounded"] / every,
                        "equal rows": spared["equal_rows"] / every,
                        "passes": short / long,
                    }
                )
    show("shares of the examples that were spared, and passes through the model against those without", lines)
    ratio = sum(line["passes"] for line in lines) / len(lines)
    close("saved_work", ratio=round(ratio, 3), goal="at most 0.5 of the passes, same trajectory", lines=lines)


if __name__ == "__main__":
    main()
