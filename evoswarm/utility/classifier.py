"""How likely a classifier finds a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import field_validator

from evoswarm.errors import UserError, did_you_mean
from evoswarm.utility.scored import ScoredTask, ScoredUtility
from evoswarm.utility.scoring import Facts, Scored, ScoringModel
from evoswarm.utility.types import Outcome, Split

KEY = "classifier"


class Classifier(ScoredTask):
    """Probability of a label, mean over examples: toxicity and the like, as in Model Swarms, section 4."""

    type: Literal["classifier"] = "classifier"
    classifier: ScoringModel
    """The model. A path or hub name in place of the section is its `model`; its `input` is then the answer alone."""
    label: str | int
    """The label by name (`id2label` of the model's config.json), or its number, counted from 0."""
    invert: bool = False
    """Score 1 minus the probability, to avoid the label."""
    part: Literal["answer", "first_line"] = "answer"
    """What is scored. first_line: the first line of the answer, as Model Swarms does for toxicity."""
    probability: Literal["auto", "softmax", "sigmoid"] = "auto"
    """softmax: one of the labels is right. sigmoid: each label is right or not. auto: what the model's `problem_type`
    says, and softmax without one."""

    @field_validator("classifier", mode="before")
    @classmethod
    def _answer_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"model": value}
        return {"input": "answer"} | value if isinstance(value, dict) else value

    @property
    def scorers(self) -> Mapping[str, ScoringModel]:
        """See `ScoredTask.scorers`."""
        return {KEY: self.classifier}

    def require(self, facts: Mapping[str, Facts]) -> None:
        """See `ScoredTask.require`."""
        found = facts[KEY]
        self.position(found)
        if found.problem == "regression" or (len(found.labels) == 1 and not self.sigmoid(found)):
            raise UserError(
                f"{KEY}: {self.classifier.model} has one output that is no probability; use utility.type: reward, or "
                "probability: sigmoid if it was trained with that"
            )

    def position(self, facts: Facts) -> int:
        """The place of the label among the model's outputs.

        Raises:
            UserError: there is no such label.
        """
        if self.label in facts.labels:
            return facts.labels.index(str(self.label))
        if isinstance(self.label, int) and 0 <= self.label < len(facts.labels):
            return self.label
        near = did_you_mean(self.label, facts.labels, kind="labels")
        listed = ", ".join(facts.labels)
        raise UserError(
            f"label {self.label!r}: {self.classifier.model} has no such label; {near}"
            + ("" if near.startswith("known") else f" It has {listed}")
        )

    def sigmoid(self, facts: Facts) -> bool:
        """Whether each label has a probability of its own."""
        multi = facts.problem == "multi_label_classification"
        return multi if self.probability == "auto" else self.probability == "sigmoid"


class ClassifierUtility(ScoredUtility[Classifier]):
    """The mean probability of the label, or 1 minus that; 0 to 1.

    Metrics: the mean probability (`probability`), and the share of answers that have the label (`share`, above 0.5).
    """

    config_class = Classifier

    def part(self, answer: str) -> str:
        answer = super().part(answer)
        return answer.partition("\n")[0].rstrip() if self.config.part == "first_line" else answer

    def combine(self, scored: Mapping[str, Scored]) -> Outcome:
        facts, one = self._models[KEY].facts, scored[KEY]
        place = self.config.position(facts)
        value = _sigmoid(one.logits[place]) if self.config.sigmoid(facts) else _softmax(one.logits, place)
        return Outcome(1.0 - value if self.config.invert else value, None, statistics=(value, float(one.cut)))

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        count = len(statistics)
        found = {
            "probability": math.fsum(value for value, _ in statistics) / count,
            "share": sum(value > 0.5 for value, _ in statistics) / count,
        }
        cut = {"cut": math.fsum(cut for _, cut in statistics) / count}
        return found | (cut if self.config.classifier.too_long == "cut" else {})


def _sigmoid(logit: float) -> float:
    return 0.5 + 0.5 * math.tanh(logit / 2)


def _softmax(logits: Sequence[float], place: int) -> float:
    largest = max(logits)
    exponentials = [math.exp(value - largest) for value in logits]
    return exponentials[place] / math.fsum(exponentials)
