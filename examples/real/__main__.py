"""A whole run with a real language model on a CPU: base, experts, evolution with both engines, soups, and a table."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from evoswarm.weights.expert import read_json
from examples.real import base, data
from examples.real.configs import ENGINES, Budget, write_configs
from examples.real.data import SKILLS
from examples.real.limits import install, scoring
from examples.real.stages import Stages, evoswarm
from examples.real.table import show


def main() -> None:
    """Run the stages that are not finished, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m examples.real", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/real"), help="folder (default: runs/real)")
    given = parser.parse_args()
    try:
        show(*run(given.output.resolve(), Budget()))
    except KeyboardInterrupt:
        sys.exit("stopped; rerun the command to resume")


def run(folder: Path, budget: Budget) -> tuple[dict[str, Any], dict[str, float]]:
    """The results of all stages, and their seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    write_configs(folder, budget)
    command = partial(evoswarm, folder=folder)
    stages = {
        "base": partial(base.main, folder / "base"),
        "data": partial(data.main, folder / "data", validation=budget.validation, test=budget.test),
        "experts": lambda: trained(folder, command("experts", "train", "experts.yaml")),
        "skills": lambda: json.loads(command("inspect", "experts", "--on", "skills.yaml", "--json", capture=True)),
        **{f"evolve, {name}": partial(evolved, folder, command, name) for name in ENGINES},
        "soups": lambda: compared(folder, command("compare", "compare.yaml")),
        "install": partial(install, folder),
        "scoring": partial(scoring, folder),
    }
    kept = Stages(folder)
    results = {name: kept.run(name, work) for name, work in stages.items()}
    return results, {name: kept.seconds[name] for name in results}


def trained(folder: Path, _: str) -> dict[str, Any]:
    """First and last loss of each expert, and the seconds of its training."""
    records = {name: read_json(folder / "experts" / name / "training.json") for name in SKILLS}
    return {
        name: {"first loss": r["loss"]["first"], "last loss": r["loss"]["last_tenth"], "s": r["seconds"]}
        for name, r in records.items()
    }


def evolved(folder: Path, command: Any, engine: str) -> dict[str, Any]:
    """The summary of a run."""
    command("run", f"{engine}.yaml")
    return read_json(folder / "runs" / engine / "summary.json")


def compared(folder: Path, _: str) -> dict[str, Any]:
    """The validation and test utility of each merge."""
    lines = read_json(folder / "runs" / "soups" / "compare.json")["targets"]["target"]["lines"]
    return {line["method"]: {"validation": line["validation"], "test": line["by_seed"][0]} for line in lines}


if __name__ == "__main__":
    main()
