"""The front of a search for several objectives, as its caller sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evoswarm.search.state import Best


@dataclass(frozen=True, eq=False)
class Front:
    """All measured rows that no other measured row dominates, oldest first.

    Attributes:
        tasks: names of the K objectives.
        rows: M rows.
        objectives: [M, K].
        reference: the point [K] from which the hypervolume is measured, the same in all generations.
        hypervolume: the volume between the reference point and the front.
    """

    tasks: tuple[str, ...]
    rows: tuple[Best, ...]
    objectives: np.ndarray
    reference: np.ndarray
    hypervolume: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the rows."""
        reference = dict(zip(self.tasks, self.reference.tolist(), strict=True))
        return {"rows": len(self.rows), "hypervolume": self.hypervolume, "reference": reference}
