"""From texts to scored texts, around an engine's logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from evoswarm.reward.texts import Encoded, TextEncoder, TooLong
from evoswarm.utility.scoring import Exchange, Scored

Logits = Callable[[Sequence[Encoded]], Sequence[Sequence[float]]]
"""An engine's outputs for each row, in order."""


class Rows:
    """Encodes texts, asks an engine for those that fit, and says why others have no score."""

    def __init__(self, model: str, encoder: TextEncoder, logits: Logits) -> None:
        self._model, self.encoder, self._logits = model, encoder, logits

    def score(self, texts: Sequence[Exchange]) -> list[Scored]:
        """See `TextScorer.score`."""
        rows: dict[int, Encoded] = {}
        problems: dict[int, str] = {}
        for i, text in enumerate(texts):
            try:
                rows[i] = self.encoder.encode(text)
            except TooLong as problem:
                problems[i] = f"{self._model}: {problem}"
        found = dict(zip(rows, self._logits(list(rows.values())), strict=True)) if rows else {}
        for i, logits in found.items():
            if not all(map(math.isfinite, logits)):
                problems[i] = f"{self._model}: the score is not a finite number; try dtype: float32"
        tokens = [self.encoder.length(text.answer) for text in texts]
        return [
            Scored((), tokens[i], error=problems[i])
            if i in problems
            else Scored(tuple(found[i]), tokens[i], rows[i].cut)
            for i in range(len(texts))
        ]
