"""How many sequences vLLM runs at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads torch
    from evoswarm.engine.vllm import VllmEngine


class Running:
    """The sequences of the steps of an engine."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine, self._taken = engine, Counter(engine.steps)

    def take(self) -> dict[str, float]:
        """The mean of running sequences since the last call, and its share of what could have run."""
        new, self._taken = self._engine.steps - self._taken, Counter(self._engine.steps)
        if not new:
            return {}
        return {"running": new["running"] / new["steps"], "of possible": new["running"] / new["possible"]}
