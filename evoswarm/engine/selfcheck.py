"""The self-check of an engine at its start: an adapter changes the answers, and the base comes back."""

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


def self_check(engine: CheckedEngine, adapter: Mapping[str, np.ndarray] | None) -> None:
    """Compare base, adapter, and base again.

    Args:
        engine: an engine that has just started.
        adapter: an adapter from `probe`; it is removed at the end. None for full checkpoints: only the base is
            installed.

    Raises:
        UserError: the engine failed.
    """
    base = _scores(engine)
    problem = _misses(engine, adapter, base) if adapter is not None else None
    engine.install(None)
    if problem is None and _scores(engine) != base:
        problem = "the base model's answers change when it is installed again"
    if problem is not None:
        raise UserError(
            f"engine: it failed its self-check ({problem}); its results would be wrong, so use another "
            "engine.type or another version of it"
        )


def _misses(engine: CheckedEngine, adapter: Mapping[str, np.ndarray], base: Sequence[float]) -> str | None:
    """How the engine fails with an adapter; `base` are its scores without one."""
    engine.install(adapter)
    if (wrong := engine.wrong_weights(adapter)) is not None:
        return f"{wrong} is not the merged weight after an install"
    same = any(one == other for one, other in zip(base, _scores(engine), strict=True))
    return "an adapter does not change its answers" if same else None


def _scores(engine: Engine) -> list[float]:
    """A score of each prompt, computed alone so that all batches have the same shape."""
    return [engine.loglikelihood([prompt], [[OPTION]])[0][0].logprob for prompt in PROMPTS]
