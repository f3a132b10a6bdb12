"""Can one expert serve two targets? Evolved on both (harmonic mean) versus evolved on each one.

Source: Model Swarms, section 3.2 (multi-task domains). All runs have the same number of evaluations; an evaluation on
both tasks scores the examples of both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.common import By, Question, ask, dots


def expert(question: Question, targets: list[str], seed: int) -> Path:
    """The expert evolved on one target, or on several targets jointly."""
    data = question.config(targets[0])
    if len(targets) > 1:
        data["utility"] = {"type": "multi_task", "tasks": {name: question.config(name)["utility"] for name in targets}}
    return question.run("-and-".join(targets), data, seed=seed) / "best"


def harmonic(utilities: list[float]) -> float:
    """The harmonic mean."""
    return len(utilities) / sum(1 / utility for utility in utilities) if all(utilities) else 0.0


def main() -> None:
    """Run the experiment."""
    question = ask("multi_task", __doc__)
    seeds, found = range(question.seeds), dict[str, By]()
    found["base"] = {target: question.test(target, None)[None] for target in question.targets}
    for on in (*([target] for target in question.targets), question.targets):
        folders = [expert(question, on, seed) for seed in seeds]
        scores = {target: np.array([question.test(target, f) for f in folders]) for target in question.targets}
        found["evolved on " + " + ".join(on)] = scores
    utilities = question.intervals(found)
    lines = [
        {"expert": name}
        | {target: question.intervals({name: {target: scores}})[name][0] for target, scores in by.items()}
        | {"mean": utilities[name][0], "mean over base": utilities[name][1]}
        | {"harmonic mean": f"{harmonic([float(scores.mean()) for scores in by.values()]):.3f}"}
        for name, by in found.items()
    ]
    question.close(lines, **dots({name: u for name, (u, _) in utilities.items()}, label="mean test utility"))


if __name__ == "__main__":
    main()
