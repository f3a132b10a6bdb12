"""What a search expected of its rows before they were measured, next to what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evoswarm.search.state import no_numbers


@dataclass
class Forecast:
    """The rows of one generation, in order.

    `expected` [M]: utility. `deviations` [M]: its standard deviation. `measured` [M]: mean score under the example
    weights; NaN for failed rows. `gain`: how much more than of the best measured row is expected, as a share of the
    range of scores.
    """

    expected: np.ndarray = field(default_factory=no_numbers)
    deviations: np.ndarray = field(default_factory=no_numbers)
    measured: np.ndarray = field(default_factory=no_numbers)
    gain: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON; None for failed rows."""
        measured = [None if np.isnan(value) else value for value in self.measured.tolist()]
        arrays = {"expected": self.expected.tolist(), "deviations": self.deviations.tolist(), "measured": measured}
        return {"gain": self.gain} | arrays
