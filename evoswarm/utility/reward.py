"""What reward models think of the answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evoswarm.errors import UserError
from evoswarm.section import Positive
from evoswarm.utility.config import Tag
from evoswarm.utility.normalize import Normalize, measured, normalized
from evoswarm.utility.scored import ScoredTask, ScoredUtility
from evoswarm.utility.scoring import Facts, Scored, ScoringModel
from evoswarm.utility.types import Outcome, Split

SHORT, LONG = 10, 201
"""Tokens of an answer with a length of 0 and of 1: the range in Model Swarms' released code."""


class RewardModel(ScoringModel):
    """A model with one output, the reward."""

    normalize: Normalize = "raw"
    """raw: the reward as it is. model_swarms: the constants of Model Swarms, for internlm2-7b-reward. measured: the
    mean and deviation of the base model's validation answers, measured once when the run starts, so that the base gets
    about 0.5. Or constants: {low, high} or {mean, deviation}."""
    reverse: bool = False
    """Prefer low rewards: the normalized reward changes its sign."""
    weight: Positive = 1.0
    """Share of this model in the score, relative to the others."""


class Reward(ScoredTask):
    """Mean reward of the answers, of one or several reward models (Model Swarms, section 4).

    The score of an answer is the weighted mean of the normalized rewards. With `length`, it is the mean of that and of
    a length from 0 to 1.
    """

    type: Literal["reward"] = "reward"
    models: dict[Tag, RewardModel] = Field(min_length=1)
    """The reward models by name. A path or hub name in place of a section is the `model`."""
    length: Literal["concise", "verbose"] | None = None
    """Also prefer short or long answers, as Model Swarms: the length is clip((n - 10) / 191, 0, 1) for n tokens of the
    first reward model, or 1 minus that if concise."""

    @property
    def scorers(self) -> Mapping[str, ScoringModel]:
        """See `ScoredTask.scorers`."""
        return {f"models.{name}": model for name, model in self.models.items()}

    def require(self, facts: Mapping[str, Facts]) -> None:
        """See `ScoredTask.require`."""
        for key, found in facts.items():
            if len(found.labels) != 1:
                raise UserError(
                    f"{key}: {self.scorers[key].model} has {len(found.labels)} outputs ({_few(found.labels)}), and a "
                    "reward model has one; use utility.type: classifier"
                )

    @field_validator("models", mode="before")
    @classmethod
    def _paths_alone(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("must name each model, as in models: {helpful: PATH}")
        return {name: {"model": model} if isinstance(model, str) else model for name, model in value.items()}

    @model_validator(mode="after")
    def _lengths_need_a_scale(self) -> Self:
        raw = [name for name, model in self.models.items() if model.normalize == "raw"]
        if self.length is not None and raw:
            raise ValueError(f"length is between 0 and 1, so set models.{raw[0]}.normalize to another value than raw")
        return self

    @property
    def to_measure(self) -> Self | None:
        """The config that measures the base model's rewards; None if nothing is to be measured."""
        if all(model.normalize != "measured" for model in self.models.values()):
            return None
        models = {name: model.with_(normalize="raw") for name, model in self.models.items()}
        return self.with_(models=models, length=None, penalty=None)

    def constants(self, statistics: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
        """Mean and deviation of the rewards of each model that is measured.

        Args:
            statistics: of each of the base model's validation answers, from `to_measure`.

        Raises:
            UserError: a model gives the same reward to every answer.
        """
        found = {}
        for place, (name, model) in enumerate(self.models.items()):
            if model.normalize == "measured":
                try:
                    found[name] = measured([row[place] for row in statistics])
                except ValueError as problem:
                    raise UserError(f"models.{name}: {model.model} {problem}; give constants as normalize") from None
        return found

    def with_constants(self, constants: Mapping[str, Mapping[str, float]]) -> Self:
        """The config with constants in place of `measured`."""
        settled = {name: {"normalize": dict(values)} for name, values in constants.items()}
        return self.with_(models={name: model.with_(**settled.get(name, {})) for name, model in self.models.items()})


class RewardUtility(ScoredUtility[Reward]):
    """The mean over examples of (sum_k w_k r_k) / (sum_k w_k), with r_k the normalized reward of model k.

    Metrics: the mean reward of each model as it is (`reward/NAME`), and the mean length of the answers in tokens of the
    first model (`tokens`). The statistics of an example are the rewards, the tokens, and whether a text was cut.

    Source: Model Swarms (arXiv 2410.11163), reward_modeling.py of its code for the normalization and the length.
    """

    config_class = Reward

    @property
    def negative(self) -> bool:
        """Raw rewards and reversed ones can be."""
        return any(model.normalize == "raw" or model.reverse for model in self.config.models.values())

    def combine(self, scored: Mapping[str, Scored]) -> Outcome:
        models = list(self.config.models.values())
        rewards = [one.logits[0] for one in scored.values()]
        tokens = next(iter(scored.values())).tokens
        signed = [
            (-1 if model.reverse else 1) * normalized(reward, model.normalize)
            for model, reward in zip(models, rewards, strict=True)
        ]
        total = math.fsum(model.weight for model in models)
        score = math.fsum(model.weight * value for model, value in zip(models, signed, strict=True)) / total
        if self.config.length is not None:
            score = (score + self._length(tokens)) / 2
        cut = any(one.cut for one in scored.values())
        return Outcome(score, None, statistics=(*rewards, float(tokens), float(cut)))

    def _length(self, tokens: int) -> float:
        length = min(1.0, max(0.0, (tokens - SHORT) / (LONG - SHORT)))
        return length if self.config.length == "verbose" else 1.0 - length

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        names = [*(f"reward/{name}" for name in self.config.models), "tokens", "cut"]
        means = {name: math.fsum(row[i] for row in statistics) / len(statistics) for i, name in enumerate(names)}
        if all(model.too_long == "fail" for model in self.config.models.values()):
            del means["cut"]
        return means


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
