"""Answers that a model may withhold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evoswarm.registry import by_type
from evoswarm.utility.config import Task, UtilityConfig
from evoswarm.utility.exact_match import ExactMatchUtility
from evoswarm.utility.multiple_choice import MultipleChoiceUtility
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import Chat, Choose, Generate, Outcome, Prompt, Request, Response, Single, Split, Turns
from evoswarm.utility.wrapped import WrappedUtility

ANSWERED: dict[str, Any] = {"multiple_choice": MultipleChoiceUtility, "exact_match": ExactMatchUtility}
"""Tasks whose answers are right or wrong."""
VERDICTS = ("true", "false")
WITHHELD = "(withheld)"
"""The prediction of a withheld answer; that of an answer that cannot be read is None."""


class Abstain(UtilityConfig):
    """Right minus wrong answers over all examples: an answer that is withheld counts as neither.

    Model Swarms (arXiv 2410.11163) maximizes it on AbstainQA (arXiv 2402.00367, "effective reliability").
    """

    type: Literal["abstain"] = "abstain"
    task: Annotated[Task, by_type(ANSWERED, lambda entry: entry.config_class)]
    """The task, a multiple_choice or an exact_match."""
    by: Literal["self_judge", "marker"] = "self_judge"
    """self_judge: the model is asked whether its own answer is true, and withholds it if false is likelier.
    marker: an answer that contains `marker` is withheld."""
    question: str = "Is the proposed answer true or false? Directly answer with true or false."
    """self_judge: what the model is asked after its answer."""
    marker: Annotated[str, Field(min_length=1)] = "<RET>"
    """marker: the text that withholds an answer, outside of reasoning. A special token of the tokenizer cannot be it:
    answers are scored without special tokens."""
    cost: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.0
    """What a withheld answer costs: its score is -cost, between that of a wrong answer (-1) and of a right one (1)."""

    @model_validator(mode="after")
    def _a_marker_is_generated(self) -> Self:
        if self.by == "marker" and getattr(self.task, "method", "generate") != "generate":
            raise ValueError("by: marker needs generated answers; set task.method: generate, or by: self_judge")
        return self

    @property
    def parts(self) -> tuple[UtilityConfig, ...]:
        """The task."""
        return (self.task,)

    def without_test(self) -> Self:
        """The same without the test split."""
        return self.with_(task=self.task.without_test())


class AbstainUtility(WrappedUtility):
    """The mean of 1 for a right answer, -1 for a wrong one and `-cost` for a withheld one; -1 to 1.

    An answer that cannot be read is wrong. Metrics, after Feng et al. (arXiv 2402.00367): `coverage`, the share of
    answers that are not withheld, and `reliable_accuracy`, the share of right ones among them. With self_judge also
    `abstain_accuracy`, the share of right answers that are given and wrong ones that are withheld, and `abstain_f1`, of
    withholding the wrong answers. A withheld answer has no vote; if no other can be read, the
    ensemble's is withheld too.
    """

    config_class = Abstain
    negative = True

    def __init__(self, config: Abstain, *, root: Path) -> None:
        self.config = config
        self._task: TaskUtility[Any] = ANSWERED[config.task.type](config.task, root=root)
        super().__init__(self._task)

    def requests(self, split: Split) -> list[Request]:
        """Without drafts: a wrong answer must be complete to be judged."""
        return [replace(r, draft=None) if isinstance(r, Generate) else r for r in self.inner.requests(split)]

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        return False

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        if self.config.by == "marker":
            return None
        (answered,) = self.inner.outcomes(split, [index], [response])
        if answered.prediction is None:
            return None
        prompt = self._asked(self.inner.requests(split)[index].prompt, answered.prediction)
        space = "" if isinstance(prompt, Chat) else " "
        return Choose(prompt, tuple(space + verdict for verdict in VERDICTS))

    def _asked(self, prompt: Prompt, answer: str) -> Prompt:
        question = self.config.question
        if isinstance(prompt, Chat):
            return replace(prompt, messages=(*prompt.messages, ("assistant", answer), ("user", question)))
        return f"{prompt}\nProposed answer: {answer}\n{question}"

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        firsts = [response.first if isinstance(response, Turns) else response for response in responses]
        answered = self.inner.outcomes(split, indices, firsts)
        shown = [self._task.answered(split, i, r) for i, r in zip(indices, responses, strict=True)]
        return [self._outcome(outcome, self._withheld(r)) for outcome, r in zip(answered, shown, strict=True)]

    def _withheld(self, response: Response) -> bool:
        """Whether a response without reasoning withholds its answer."""
        if self.config.by == "marker":
            return isinstance(response, str) and self.config.marker in response
        if not isinstance(response, Turns):
            return False
        assert not isinstance(response.second, str)
        true, false = response.second
        return false.logprob > true.logprob

    def _outcome(self, answered: Outcome, withheld: bool) -> Outcome:
        if answered.score is None:
            return answered
        right = answered.score == 1.0
        score = 0.0 - self.config.cost if withheld else 1.0 if right else -1.0
        prediction = WITHHELD if withheld else answered.prediction
        return Outcome(score, prediction, logprobs=answered.logprobs, statistics=(float(right), float(withheld)))

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        counts = {(r, w): sum(tuple(s) == (r, w) for s in statistics) for r in (0, 1) for w in (0, 1)}
        given = counts[1, 0] + counts[0, 0]
        found = {"coverage": given / len(statistics), "reliable_accuracy": counts[1, 0] / given if given else 0.0}
        if self.config.by == "marker":  # whether a withheld answer would be right is unknown
            return found
        judged = 2 * counts[0, 1] + counts[1, 1] + counts[0, 0]
        return found | {
            "abstain_accuracy": (counts[1, 0] + counts[0, 1]) / len(statistics),
            "abstain_f1": 2 * counts[0, 1] / judged if judged else 0.0,
        }

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        """Unknown: the probability of the right answer is not that of a score."""
        return math.nan

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        return None

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        given = [prediction for prediction in predictions if prediction != WITHHELD]
        elected = self.inner.vote(split, index, given)
        return self._outcome(elected, elected.prediction is None and len(given) < len(predictions))
