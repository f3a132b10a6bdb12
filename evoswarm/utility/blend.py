"""Accuracy and the log-likelihood of the right answer, as one utility."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import field_validator

from evoswarm.registry import by_type
from evoswarm.section import NonNegative
from evoswarm.utility.config import Task, UtilityConfig
from evoswarm.utility.exact_match import ExactMatchUtility
from evoswarm.utility.multiple_choice import MultipleChoiceUtility
from evoswarm.utility.prompts import delimiter
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import (
    SPLITS,
    Choose,
    Generate,
    OptionScore,
    Outcome,
    Request,
    Response,
    Single,
    Split,
    Turns,
)
from evoswarm.utility.wrapped import WrappedUtility

ANSWERED: dict[str, Any] = {"multiple_choice": MultipleChoiceUtility, "exact_match": ExactMatchUtility}
"""Tasks whose answers are right or wrong."""
Part = Literal["accuracy", "loglikelihood"]


class Blend(UtilityConfig):
    """Weighted mean of accuracy and the log-likelihood of the right answer, which changes with every weight.

    Options are scored once for both. A generated answer is followed by a request for the log-likelihood of the
    reference.
    """

    type: Literal["blend"] = "blend"
    task: Annotated[Task, by_type(ANSWERED, lambda entry: entry.config_class)]
    """The task, a multiple_choice or an exact_match."""
    weights: dict[Part, NonNegative] = {"accuracy": 0.5, "loglikelihood": 0.5}
    """The weights of accuracy and loglikelihood, normalized to sum 1."""
    per: Literal["token", "byte", "answer", "options"] = "token"
    """The log-likelihood (natural logarithm) of the right answer, divided by its tokens, by its bytes in UTF-8, or not
    divided. options: of the right option among the options, for a multiple_choice with method loglikelihood."""

    @field_validator("weights")
    @classmethod
    def _both_weights(cls, value: dict[Part, float]) -> dict[Part, float]:
        if set(value) != {"accuracy", "loglikelihood"}:
            raise ValueError("give a weight to accuracy and one to loglikelihood")
        if sum(value.values()) == 0:
            raise ValueError("both weights are zero; give at least one a positive weight")
        return value

    @field_validator("per")
    @classmethod
    def _options_are_scored(cls, value: str, info: Any) -> str:
        task = info.data.get("task")
        if value == "options" and task is not None and getattr(task, "method", None) != "loglikelihood":
            raise ValueError("options needs a task of type multiple_choice with method: loglikelihood; use token")
        return value

    @property
    def parts(self) -> tuple[UtilityConfig, ...]:
        """The task."""
        return (self.task,)

    def without_test(self) -> Self:
        """The same without the test split."""
        return self.with_(task=self.task.without_test())


class BlendUtility(WrappedUtility):
    """The mean of w_a accuracy + w_l log-likelihood. Of several references of one example, the likeliest counts.

    Metrics: `accuracy` and `loglikelihood`. There are no votes, because a vote has no likelihood.
    """

    config_class = Blend
    negative = True

    def __init__(self, config: Blend, *, root: Path) -> None:
        self.config = config
        self._task: TaskUtility[Any] = ANSWERED[config.task.type](config.task, root=root)
        super().__init__(self._task)
        self.votes = False
        self._requests = {split: self._task.requests(split) for split in SPLITS}
        self._shares = {name: weight / sum(config.weights.values()) for name, weight in config.weights.items()}

    def requests(self, split: Split) -> list[Request]:
        """Without drafts: an answer that is known to be wrong has a likelihood too."""
        return [replace(r, draft=None) if isinstance(r, Generate) else r for r in self.inner.requests(split)]

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        return False

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        if not isinstance(response, str):
            return None
        prompt = self._requests[split][index].prompt
        space = delimiter(prompt)
        return Choose(prompt, tuple(space + text for text in self._task.right_answers(split, index)))

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        firsts = [response.first if isinstance(response, Turns) else response for response in responses]
        answered = self.inner.outcomes(split, indices, firsts)
        return [self._blended(split, *each) for each in zip(indices, answered, responses, strict=True)]

    def _blended(self, split: Split, index: int, answered: Outcome, response: Response) -> Outcome:
        if answered.score is None:
            return answered
        likelihood = self._loglikelihood(split, index, response)
        if not math.isfinite(likelihood):
            return Outcome(None, None, "the log-likelihood of the right answer is not a finite number")
        score = self._shares["accuracy"] * answered.score + self._shares["loglikelihood"] * likelihood
        return replace(answered, score=score, statistics=(answered.score, likelihood))

    def _loglikelihood(self, split: Split, index: int, response: Response) -> float:
        """Of the right option, or of the likeliest reference."""
        if isinstance(response, Turns):
            assert not isinstance(response.second, str)
            pairs = zip(response.second, self._task.right_answers(split, index), strict=True)
            return max(self._divided(option, text) for option, text in pairs)
        assert not isinstance(response, str)
        if self.config.per == "options":
            return self.inner.gold_logprob(split, index, [option.logprob for option in response])
        request, (text,) = self._requests[split][index], self._task.right_answers(split, index)
        assert isinstance(request, Choose)
        return self._divided(response[request.options.index(delimiter(request.prompt) + text)], text)

    def _divided(self, option: OptionScore, text: str) -> float:
        size = {"token": option.tokens, "byte": len(text.encode())}.get(self.config.per, 1)
        return option.logprob / max(1, size)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        accuracy, likelihood = (math.fsum(values) / len(statistics) for values in zip(*statistics, strict=True))
        return {"accuracy": accuracy, "loglikelihood": likelihood}

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        """Unknown: the probability of the right answer is not that of a score."""
        return math.nan

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        return None

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        raise ValueError("answers with a likelihood cannot be put to a vote")
