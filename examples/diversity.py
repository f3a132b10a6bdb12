"""Do diverse experts help? Pools of ten: one expert ten times, two five times, five twice, or ten different ones.

Source: Model Swarms, section 5 (diversity of the starting experts).
"""

from __future__ import annotations

import random
import shutil
from functools import partial

from examples.common import EXPERTS, Question, ask, dots, expert_folders


def pool(seed: int, *, question: Question, distinct: int) -> list[str]:
    """Folders of a pool of ten: `distinct` experts drawn with the seed, each copied equally often."""
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
    """Run the experiment."""
    question = ask("diversity", __doc__)
    runs = {}
    for distinct in (1, 2, 5, 10):
        name = f"{distinct}x{EXPERTS // distinct}"
        runs[name] = question.runs(name, pool=partial(pool, question=question, distinct=distinct))
    found, before = question.utilities(runs), question.utilities(runs, "best_expert")
    lines = [
        {"distinct x copies": name, "best expert": before[name][0], "evolved": utility, "over 1x10": gain}
        for name, (utility, gain) in found.items()
    ]
    question.close(lines, **dots({name: u for name, (u, _) in found.items()}, label="test utility"))


if __name__ == "__main__":
    main()
