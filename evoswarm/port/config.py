"""What to port where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCALES = (0.5, 0.75, 1.0, 1.25)
"""How much of the winner's change is added to the new base model."""


@dataclass(frozen=True)
class PortConfig:
    """What to port where.

    Attributes:
        run_dir: the run.
        model: the new base model.
        output: folder for the result.
        scales: factors of the winner's change; the best on validation is chosen.
        overrides: settings of the run's config to change, such as `engine.threads=4`.
    """

    run_dir: Path
    model: str
    output: Path
    scales: Sequence[float] = SCALES
    overrides: Sequence[str] = ()
