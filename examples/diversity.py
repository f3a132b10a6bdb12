"""Do diverse experts matter? Pools of ten: one expert ten times, two five times, five twice, ten different ones.

Source: Model Swarms, section 5 (diversity of the starting experts).
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from examples.common import EXPERTS, Question, ask, dots, expert_folders, winners


def pool(question: Question, *, distinct: int, seed: int) -> list[str]:
    """Folders of a pool of ten: the first experts of an order that the seed draws, each as often as it takes."""
    order = random.Random(f"diversity {seed}").sample(expert_folders(), EXPERTS)
    folders = []
    for expert in order[:distinct]:
        for copy in range(EXPERTS // distinct):
            folder = question.folder / "pool" / f"{expert.name}-{copy}"
            if not folder.exists():
                shutil.copytree(expert, folder)
            folders.append(str(folder))
    return folders


def main() -> None:
    """Ask it."""
    question = ask("diversity", __doc__)
    runs: dict[str, dict[str, list[Path]]] = {}
    for distinct in (1, 2, 5, 10):
        name = f"{distinct}x{EXPERTS // distinct}"
        runs[name] = {
            target: [
                question.run(
                    f"{target}-{name}",
                    question.config(target) | {"pool": pool(question, distinct=distinct, seed=seed)},
                    seed=seed,
                )
                for seed in range(question.seeds)
            ]
            for target in question.targets
        }
    found = question.intervals({name: {t: winners(dirs) for t, dirs in by.items()} for name, by in runs.items()})
    before = question.intervals(
        {name: {t: winners(dirs, "best_expert") for t, dirs in by.items()} for name, by in runs.items()}
    )
    lines = [
        {"distinct x copies": name, "best expert": before[name][0], "evolved": utility, "over 1x10": gain}
        for name, (utility, gain) in found.items()
    ]
    question.close(lines, **dots({name: u for name, (u, _) in found.items()}, label="test utility"))


if __name__ == "__main__":
    main()
