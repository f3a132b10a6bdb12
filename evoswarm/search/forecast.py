"""What a search expected of its rows before they were measured, next to what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evoswarm.search.state import no_numbers, to_optional


@dataclass
class Forecast:
    """The rows of one generation, in order.

    `expected` [M]: utility. `deviations` [M]: its standard deviation. `utilities` [M]: what was measured, as
    the mean score under the example weights. `gain`: how much more is expected of the first row than of the best
    measured one, as a share of the range of scores.
    """

    expected: np.ndarray = field(default_factory=no_numbers)
    deviations: np.ndarray = field(default_factory=no_numbers)
    utilities: np.ndarray = field(default_factory=no_numbers)
    gain: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON; None for failed rows."""
        measured = [to_optional(utility) for utility in self.utilities]
        predicted = {"expected": self.expected.tolist(), "deviations": self.deviations.tolist()}
        return {"gain": self.gain} | predicted | {"measured": measured}
