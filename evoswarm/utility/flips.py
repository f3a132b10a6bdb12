"""Examples that an old model had right and a new one gets wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evoswarm.utility.config import Penalty, UtilityConfig
from evoswarm.utility.types import SPLITS, Split, Utility
from evoswarm.utility.wrapped import WrappedUtility


class FlipsUtility(WrappedUtility):
    """A utility minus `flips` times the mean drop of the score below that of an old model, max(0, old - new).

    Where scores are 0 or 1, the mean drop is the rate of negative flips: examples that the old model had right and the
    new one gets wrong, over all examples. The scores of examples stay those of the inner utility. Metrics: this rate as
    `negative_flips`, and the mean rise as `positive_flips`.

    Source: MUSCLE (arXiv 2407.09435), negative flip rate.
    """

    def __init__(self, inner: Utility, penalty: Penalty) -> None:
        super().__init__(inner)
        self._penalty = penalty
        self.negative = inner.negative or penalty.flips > 0
        self._old: dict[Split, list[float]] = {}

    def baselines(self, split: Split) -> list[str]:
        own = [self._penalty.against] if split in SPLITS and self.size(split) else []
        return list(dict.fromkeys([*self.inner.baselines(split), *own]))

    def calibrate(self, split: Split, measured: Mapping[str, Sequence[Sequence[float]]]) -> None:
        self.inner.calibrate(split, measured)
        if split in SPLITS:
            (self._old[split],) = map(list, measured[self._penalty.against])

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        value = self.inner.aggregate(split, scores)
        lost = (w * max(0.0, old - new) for w, old, new in self._compared(split, scores))
        return value - self._penalty.flips * math.fsum(lost)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        changes = [(w, new - old) for w, old, new in self._compared(split, scores)]
        return self.inner.metrics(split, scores, statistics) | {
            "negative_flips": math.fsum(w * max(0.0, -change) for w, change in changes),
            "positive_flips": math.fsum(w * max(0.0, change) for w, change in changes),
        }

    def weights(self, split: Split) -> list[float]:
        """Exact for scores of 0 and 1, up to a constant: what the old model had right counts 1 + `flips` times."""
        pairs = zip(self.inner.weights(split), self._olds(split), strict=True)
        weights = [w * (1 + self._penalty.flips * min(max(old, 0.0), 1.0)) for w, old in pairs]
        return [w / math.fsum(weights) for w in weights]

    def _compared(self, split: Split, scores: Sequence[float]) -> list[tuple[float, float, float]]:
        """Weight, old score and new score of each example."""
        return list(zip(self.inner.weights(split), self._olds(split), scores, strict=True))

    def _olds(self, split: Split) -> list[float]:
        if split not in self._old:
            raise ValueError(f"the old model has not been measured on {split}")
        return self._old[split]


def penalized(utility: Utility, config: UtilityConfig) -> Utility:
    """The utility with the penalty of its config, if there is one."""
    return utility if config.penalty is None else FlipsUtility(utility, config.penalty)
