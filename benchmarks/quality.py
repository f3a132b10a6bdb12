"""Search quality on the toy targets: the winner against the best initial expert and random search at equal cost.

Default settings, several seeds; test utilities with 95 % bootstrap intervals over seeds and examples. The runs are
kept in a folder, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

import evoswarm
from benchmarks.common import close, show
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.loop.directory import read_lines
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS

ALGORITHMS = ("model_swarms", "genome_plus")
RANDOM_POPULATION, EXPERTS, RESAMPLES = 20, 10, 10_000


def main() -> None:
    """Run what is missing, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/quality"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    targets = arguments.targets.split(",")
    work = [(seed, target) for seed in range(arguments.seeds) for target in targets]
    found: dict[tuple[int, str], dict[str, Any]] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        futures = {pool.submit(compare, arguments.folder, target, seed): (seed, target) for seed, target in work}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            print(f"seed {futures[future][0]} {futures[future][1]} done ({len(found)} of {len(work)})", flush=True)
    lines = [line for target in targets for line in _lines(target, [found[s, target] for s in range(arguments.seeds)])]
    show("test utility, mean over seeds; gains with 95 % intervals", lines)
    _finish(lines, arguments.seeds)


def compare(folder: Path, target: str, seed: int) -> dict[str, Any]:
    """Both algorithms, and random search to the number of evaluations of each."""
    runs = {algorithm: _run(folder, target, seed, algorithm) for algorithm in ALGORITHMS}
    result: dict[str, Any] = {}
    for algorithm, summary in sorted(runs.items(), key=lambda item: item[1]["evaluations"]):
        generations = math.ceil((summary["evaluations"] - EXPERTS) / RANDOM_POPULATION)
        overrides = [f"search.max_generations={generations}", f"search.population={RANDOM_POPULATION}"]
        result[algorithm] = {
            "evaluations": summary["evaluations"],
            "base": summary["base"]["test"],
            "ensemble": summary["ensemble"]["test"],
            "winner": _test_scores(summary, "ensemble:0"),
            "expert": _test_scores(summary, "best_expert"),
        }
        random = _run(folder, target, seed, "random_search", *overrides)
        result[algorithm]["random"] = _test_scores(random, "ensemble:0")
        result[algorithm]["random evaluations"] = random["evaluations"]
    return result


def _run(folder: Path, target: str, seed: int, algorithm: str, *overrides: str) -> dict[str, Any]:
    data = target_config(target, algorithm=algorithm)
    settings = [f"name={target}-{algorithm}-{seed}", f"seed={seed}", f"output={folder.resolve()}", *overrides]
    config = parse_config(apply_overrides(data, [*settings, "backend={type: local}"]), root=Path.cwd())
    return evoswarm.run(config)


def _test_scores(summary: dict[str, Any], who: str) -> np.ndarray:
    records = read_lines(Path(summary["run_dir"]) / "outcomes" / "final.jsonl")
    return np.array(next(r["scores"] for r in records if r["who"] == who and r["split"] == "test"))


def _lines(target: str, results: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for algorithm in ALGORITHMS:
        runs = [result[algorithm] for result in results]
        scores = {name: np.stack([run[name] for run in runs]) for name in ("winner", "expert", "random")}
        yield {
            "target": target,
            "algorithm": algorithm,
            "base": float(np.mean([run["base"] for run in runs])),
            **{name: float(values.mean()) for name, values in scores.items()},
            "ensemble": float(np.mean([run["ensemble"] for run in runs])),
            "over expert": interval(scores["winner"] - scores["expert"]),
            "over random": interval(scores["winner"] - scores["random"]),
            "evaluations": round(float(np.mean([run["evaluations"] for run in runs]))),
        }


def interval(differences: np.ndarray, *, seed: int = 0) -> str:
    """Mean and 95 % interval of paired differences [seeds, examples], resampling seeds and examples."""
    rng = np.random.default_rng(seed)
    seeds, examples = differences.shape
    means = [
        differences[np.ix_(rng.integers(seeds, size=seeds), rng.integers(examples, size=examples))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def _finish(lines: list[dict[str, Any]], seeds: int) -> None:
    def above(line: dict[str, Any], key: str) -> bool:
        return float(line[key].split("[")[1].split(",")[0]) > 0

    wins = {
        algorithm: {
            key: sum(above(line, key) for line in lines if line["algorithm"] == algorithm)
            for key in ("over expert", "over random")
        }
        for algorithm in ALGORITHMS
    }
    close(
        "quality",
        ratio=min(min(counts.values()) for counts in wins.values()) / 3,
        goal="at least 1: targets whose 95 % interval is above 0, of three wanted, for each algorithm and comparison",
        seeds=seeds,
        targets_above=wins,
        lines=json.loads(json.dumps(lines)),
    )


if __name__ == "__main__":
    main()
