"""The scorer actor: one engine, the base model loaded once for the whole run."""

from __future__ import annotations

from collections.abc import Hashable

from evoswarm.backend.ray.particle import Moved
from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.utility import Outcome, Split
from evoswarm.weights.pool import open_pool


class Scorer:
    """Takes (particle, slice) work; see `backend.worker`."""

    def __init__(self, config: RunConfig, number: int) -> None:
        self.number = number
        self._worker = Worker(config, pool=open_pool(config.pool, model=config.model, check=False))
        self._moved: Hashable = None

    def score(
        self, key: Hashable, moved: Moved | None, split: Split, number: int, texts: bool
    ) -> tuple[list[Outcome], float, float]:
        """Outcomes of one slice of one particle.

        Args:
            key: names the particle's weights; the same key means the same weights.
            moved: the particle's weights, from the object store; None is the base model.
            split: which examples.
            number: which slice of them.
            texts: every prediction is wanted, not only the scores.

        Returns:
            The outcomes, the seconds of scoring, and the seconds of moving and installing.
        """
        weights, seconds = moved if moved is not None else (None, 0.0)
        first = key != self._moved
        moving = self._worker.install(key, weights) + (seconds if first else 0.0)
        self._moved = key
        outcomes, scoring = self._worker.score(split, number, texts=texts)
        return outcomes, scoring, moving

    def ready(self) -> bool:
        """Answers once the engine is loaded."""
        return True

    def __repr__(self) -> str:
        return f"Scorer({self.number})"
