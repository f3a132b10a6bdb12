"""A toy world to try evoswarm: a small base model, ten experts, four targets. No hub, no GPU, seconds per generation.

base/                 a Llama with about one million parameters, a character tokenizer and a chat template
experts/<skill>/      one LoRA adapter per skill, in peft's format
targets/<name>.json   tasks in the Model Swarms format: `dev` (validation, 200) and `test` (1000)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def world() -> Path:
    """The folder of the toy world that ships with evoswarm."""
    return Path(__file__).parent / "world"


def build(folder: Path, *, seed: int = 0, log: Callable[[str], None] = print) -> None:
    """Build a toy world in `folder`. The same seed on the same kind of machine gives the same weights.

    Raises:
        UserError: the folder is not empty.
    """
    from evoswarm.toy.make import make

    make(folder, seed=seed, log=log)


def skill_matrix(folder: Path) -> dict[str, dict[str, float]]:
    """Accuracy in [0, 1] of the base and of each expert (outer key) on held-out questions per skill (inner key)."""
    from evoswarm.toy.make import measure

    return measure(folder)
