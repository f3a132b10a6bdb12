"""The self-check of an engine that was not tested here: an adapter changes the answers, without it the base is back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from evoswarm.engine.base import Engine
from evoswarm.errors import UserError

PROMPTS = ("The capital of France is", "1 2 3 4", "a")
OPTION = " the"
STRENGTH = 0.05
"""Standard deviation of the probe's values; large enough to change the answers of any model."""


class CheckedEngine(Engine, Protocol):
    """An engine that can be checked."""

    needs_check: bool
    """Whether it computes on a GPU, or with a version of its library that was not tested."""

    def wrong_weights(self, weights: Mapping[str, np.ndarray]) -> str | None:
        """The first parameter that is not the base merged with the installed `weights`, computed in float64."""
        ...


def probe(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Random tensors of an adapter."""
    rng = np.random.default_rng(0)
    return {name: STRENGTH * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def self_check(engine: CheckedEngine, adapter: Mapping[str, np.ndarray]) -> None:
    """Compare base, adapter, and base again.

    Args:
        engine: an engine that has just started.
        adapter: an adapter from `probe`; it is removed at the end.

    Raises:
        UserError: the engine failed.
    """
    base = _scores(engine)
    engine.install(adapter)
    wrong, changed = engine.wrong_weights(adapter), _scores(engine)
    engine.install(None)
    again = _scores(engine)
    problem = None
    if wrong is not None:
        problem = f"{wrong} is not the merged weight after an install"
    elif any(one == other for one, other in zip(base, changed, strict=True)):
        problem = "an adapter does not change its answers"
    elif again != base:
        problem = "the base model's answers change after an adapter was installed and removed"
    if problem is not None:
        raise UserError(
            f"engine: it failed its self-check ({problem}); its results would be wrong, so use another "
            "engine.type or another version of it"
        )


def _scores(engine: Engine) -> list[float]:
    """A score of each prompt, computed alone so that all batches have the same shape."""
    return [engine.loglikelihood([prompt], [[OPTION]])[0][0].logprob for prompt in PROMPTS]
