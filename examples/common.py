"""Shared by all questions: arguments, runs on the toy world under one budget, intervals, a table and a plot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

import evoswarm
from evoswarm.compare.methods import search_run
from evoswarm.config import RunConfig
from evoswarm.config.compare import Comparison
from evoswarm.config.load import parse_config
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.evaluate import measure
from evoswarm.report.drawing import BEST, render
from evoswarm.report.statistics import Interval, interval, resampled_means
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS
from evoswarm.weights.expert import read_json

EXPERTS = 10
Scores = np.ndarray
"""[S, E]: one row per seed (a single row if seeds do not apply), one column per test example."""
By = dict[str, Scores]
"""Scores per target."""
Runs = dict[str, list[Path]]
"""Run directories per target, one per seed."""


@dataclass(frozen=True)
class Question:
    """One research question with the settings from the command line.

    Attributes:
        budget: evaluations per run, including those of the initial experts.
        folder: holds the runs, the JSON and the plot; a rerun measures only what is missing.
        limit: use only the first `limit` examples of each split; None: all.
    """

    name: str
    seeds: int
    budget: int
    targets: list[str]
    folder: Path
    limit: int | None

    def config(self, target: str) -> dict[str, Any]:
        """The config of a local run on one target."""
        data = target_config(target, algorithm="model_swarms")
        data["utility"]["data"] = {"path": data["utility"]["data"], "limit": self.limit, "test_limit": self.limit}
        return data | {"backend": {"type": "local"}, "output": str(self.folder)}

    def run(self, name: str, data: dict[str, Any], *, seed: int, **search: Any) -> Path:
        """Evolve under the budget and return the run directory; `search` overrides the search's defaults."""
        algorithm = search.pop("type", "model_swarms")
        own = {"population": EXPERTS, "ensemble_size": 1} | search
        config = parse_config(data | {"name": f"{name}-{seed}"}, root=Path.cwd(), source=self.name)
        section = Comparison(budget=self.budget, searches={algorithm: own})
        run = search_run(config, section, algorithm, seed=seed, experts=EXPERTS)
        evoswarm.run(run.with_(output=self.folder, name=f"{name}-{seed}"))
        print(f"{name} seed {seed} done", flush=True)
        return run.run_dir

    def runs(self, name: str, *, pool: Callable[[int], list[str]] | None = None, **search: Any) -> Runs:
        """Run one condition on every target with every seed; `pool` maps a seed to expert folders (default: all)."""
        return {
            target: [
                self.run(
                    f"{target}-{name}",
                    self.config(target) | ({} if pool is None else {"pool": pool(seed)}),
                    seed=seed,
                    **search,
                )
                for seed in range(self.seeds)
            ]
            for target in self.targets
        }

    def test(self, target: str, expert: Path | None) -> np.ndarray:
        """Test scores [E] of an expert folder, or of the base model, on a target; cached on disk."""
        name = f"measured/{target}-{'base' if expert is None else '-'.join(expert.parts[-2:])}.json"
        if not (self.folder / name).exists():
            config: RunConfig = parse_config(self.config(target), root=Path.cwd())
            scores = measure(config, adapter=expert, recipe=None, split="test").scores
            RunDirectory(self.folder).write_json(name, {"scores": scores})
        return np.array(read_json(self.folder / name)["scores"], dtype=float)

    def utilities(
        self, runs: Mapping[str, Runs], who: str = "ensemble:0"
    ) -> dict[str, tuple[Interval, Interval | None]]:
        """`intervals` of the test scores of the runs of each condition."""
        return self.intervals({name: {t: winners(dirs, who) for t, dirs in by.items()} for name, by in runs.items()})

    def intervals(self, found: Mapping[str, By]) -> dict[str, tuple[Interval, Interval | None]]:
        """Per condition: the mean utility over targets, and the paired gain over the first condition."""
        means: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in found}
        for number, target in enumerate(next(iter(found.values()))):
            draws = resampled_means({name: by[target] for name, by in found.items()}, seed=number)
            for name, by in found.items():
                means[name].append((float(by[target].mean()), draws[name]))
        whole = {
            n: (float(np.mean([m for m, _ in pairs])), sum(d for _, d in pairs) / len(pairs))
            for n, pairs in means.items()
        }
        first, first_draws = next(iter(whole.values()))
        reference = next(iter(whole))
        return {
            name: (interval(mean, draws), None if name == reference else interval(mean - first, draws - first_draws))
            for name, (mean, draws) in whole.items()
        }

    def close(self, lines: Sequence[dict[str, Any]], draw: Callable[[Axes], str], *, height: float = 3.1) -> None:
        """Print the table, and write it as JSON and the plot (`height` in inches) as PNG."""
        table = Table(title=f"{self.name}: seeds {self.seeds}, budget {self.budget}, targets {', '.join(self.targets)}")
        for name in lines[0]:
            table.add_column(name, justify="left" if name == next(iter(lines[0])) else "right")
        for line in lines:
            table.add_row(*(text(value, signed="over" in name) for name, value in line.items()))
        console = Console(highlight=False)
        console.width = max(console.width, 150)  # wide enough that intervals do not wrap
        console.print(table)
        plain = [{key: asdict(v) if isinstance(v, Interval) else v for key, v in line.items()} for line in lines]
        directory = RunDirectory(self.folder)
        settings = {"question": self.name, "seeds": self.seeds, "budget": self.budget, "targets": self.targets}
        directory.write_json(f"{self.name}.json", settings | {"limit": self.limit, "lines": plain})
        directory.write(f"{self.name}.png", render(self.name, draw, height=height).png)
        print(json.dumps({"json": f"{self.folder / self.name}.json", "plot": f"{self.folder / self.name}.png"}))


def ask(name: str, doc: str | None, *, targets: Sequence[str] = ("office", "letters")) -> Question:
    """The question with the settings from the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=doc)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds (default: 2)")
    parser.add_argument("--budget", type=int, default=60, help="evaluations per run (default: 60)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(targets), help="targets of the toy world")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/questions"), help="output folder (default: runs/questions)"
    )
    parser.add_argument("--limit", type=int, help="examples per split (default: all)")
    given = parser.parse_args()
    folder = given.output.resolve() / f"{name}-{given.budget}"
    return Question(name, given.seeds, given.budget, given.targets, folder, given.limit)


def winners(run_dirs: Sequence[Path], who: str) -> Scores:
    """Test scores of the runs' winners."""
    return np.array([_final(run_dir, who) for run_dir in run_dirs], dtype=float)


def _final(run_dir: Path, who: str) -> list[float]:
    lines = read_lines(run_dir / "outcomes" / "final.jsonl")
    return next(line["scores"] for line in lines if (line["who"], line["split"]) == (who, "test"))


def expert_folders() -> list[Path]:
    """The toy world's expert folders."""
    return sorted((world() / "experts").iterdir())


def text(value: Any, *, signed: bool) -> str:
    """The text of a table cell."""
    if isinstance(value, Interval):
        return value.signed if signed else str(value)
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)


def dots(named: Mapping[str, Interval], *, label: str) -> dict[str, Any]:
    """Plot arguments for `Question.close`: one dot with its interval per condition."""
    return {"draw": partial(_dots, named=named, label=label), "height": 0.8 + 0.3 * len(named)}


def _dots(axes: Axes, *, named: Mapping[str, Interval], label: str) -> str:
    for y, found in enumerate(named.values()):
        axes.plot([found.low, found.high], [y, y], color=BEST, linewidth=1.4)
        axes.plot([found.mean], [y], "o", color=BEST, markersize=5)
    axes.set_yticks(range(len(named)), list(named))
    axes.margins(y=0.15)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return f"{label}: " + ", ".join(f"{name} {found}" for name, found in named.items())
