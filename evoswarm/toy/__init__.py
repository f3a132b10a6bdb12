"""A toy world to try evoswarm in: a small base, ten experts, four targets. No hub, no GPU, seconds per generation.

base/                 Llama of about one million parameters with a character tokenizer and a chat template
experts/<skill>/      LoRA adapters of one skill each, as peft saves them
targets/<name>.json   tasks in the Model Swarms format: `dev` (validation, 200) and `test` (1000)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def world() -> Path:
    """The folder of the toy world that comes with evoswarm."""
    return Path(__file__).parent / "world"


def build(folder: Path, *, seed: int = 0, log: Callable[[str], None] = print) -> None:
    """Make a toy world in `folder`. The same seed on the same kind of machine gives the same weights.

    Raises:
        UserError: the folder already holds something.
    """
    from evoswarm.toy.make import make

    make(folder, seed=seed, log=log)


def skill_matrix(folder: Path) -> dict[str, dict[str, float]]:
    """Accuracy in [0, 1] of the base and each expert (outer key) on held-out questions of each skill (inner key)."""
    from evoswarm.toy.make import measure

    return measure(folder)
