"""Scores of reward models on one scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from evoswarm.errors import UserError
from evoswarm.section import Positive, Section

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Constants(Section):
    """Constants of a normalization to 0 to 1.

    low and high: clip((s - low) / (high - low), 0, 1). mean and deviation: 1 / (1 + exp(-(s - mean) / deviation)), in
    which a better answer always has a higher score.
    """

    low: Finite | None = None
    """The score that becomes 0."""
    high: Finite | None = None
    """The score that becomes 1."""
    mean: Finite | None = None
    """The score that becomes 0.5."""
    deviation: Positive | None = None
    """How far above `mean` the score is that becomes 0.73."""

    @model_validator(mode="after")
    def _one_pair(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if given not in ({"low", "high"}, {"mean", "deviation"}):
            raise ValueError("give low and high, or mean and deviation")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        return self

    def normalized(self, score: float) -> float:
        """A score between 0 and 1."""
        if self.low is not None and self.high is not None:
            return min(1.0, max(0.0, (score - self.low) / (self.high - self.low)))
        assert self.mean is not None and self.deviation is not None
        return 0.5 + 0.5 * math.tanh((score - self.mean) / (2 * self.deviation))


MODEL_SWARMS = Constants(low=-3.060546875, high=2.65625)
"""Of internlm2-7b-reward on the development set of Model Swarms (its released code, reward_modeling.py)."""


def _kind(value: Any) -> str:
    return "tag-constants" if isinstance(value, dict | Constants) else "tag-name"


Normalize = Annotated[
    Annotated[Literal["raw", "model_swarms", "measured"], Tag("tag-name")] | Annotated[Constants, Tag("tag-constants")],
    Discriminator(_kind),
]
"""A way to normalize scores."""


def normalized(score: float, how: Normalize) -> float:
    """A score on the scale that `how` says.

    Raises:
        UserError: constants are yet to be measured.
    """
    if how == "raw":
        return score
    if how == "measured":
        raise UserError("normalize: measured works in `run` and `evaluate`; here, give the constants of a run")
    return (MODEL_SWARMS if how == "model_swarms" else how).normalized(score)


def measured(scores: Sequence[float]) -> dict[str, float]:
    """The mean and the standard deviation of scores, as `Constants`.

    Raises:
        ValueError: they are all the same.
    """
    deviation = statistics.pstdev(scores)
    if deviation == 0:
        raise ValueError("gives the same score to every answer of the base model")
    return {"mean": statistics.fmean(scores), "deviation": deviation}
