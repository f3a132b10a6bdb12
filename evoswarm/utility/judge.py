"""What other models think of the answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from evoswarm.errors import UserError
from evoswarm.utility.data import resolve
from evoswarm.utility.judge_config import Judge, Recorded
from evoswarm.utility.prompts import render, template_fields
from evoswarm.utility.reasoning import without_reasoning
from evoswarm.utility.recorded import recorded_answers
from evoswarm.utility.service.memory import Answer, Unanswered, content_hash
from evoswarm.utility.service.ratings import expected, read_json, read_rating, read_verdict, verdict_format
from evoswarm.utility.service.utility import ServiceUtility
from evoswarm.utility.types import SPLITS, Outcome, Split


class Question(NamedTuple):
    """What one judge is asked."""

    judge: str
    text: str


class JudgeUtility(ServiceUtility[Judge, Question]):
    """The mean of the judges' ratings. The prediction is the answer, so there are no votes.

    The statistics of an outcome are two numbers per judge: the score, and 1 if its verdict could be read (with
    `against`: if it is the same in both orders).

    Raises:
        UserError: an example lacks a field of the rubric, or there is no answer to compare with.
    """

    config_class = Judge

    def __init__(self, config: Judge, *, root: Path) -> None:
        self._root = root
        self._others: dict[Split, list[str]] = {}
        self._unknown = ""
        super().__init__(config, root=root)

    def prepare_service(self) -> None:
        if not isinstance(self.config.against, Recorded):
            return
        run, sizes = resolve(self.config.against.run, self._root), {split: self.size(split) for split in SPLITS}
        self._others = recorded_answers(run, self.config.against.who, data=self.sha256, sizes=sizes)
        self.sha256 += "+" + hashlib.sha256(json.dumps(self._others).encode()).hexdigest()

    async def connect(self) -> None:
        from evoswarm.utility.judge_endpoints import Endpoints

        self._endpoints = Endpoints(self.config, self._account)

    async def check(self) -> None:
        self._unknown = await self._endpoints.check()

    async def disconnect(self) -> None:
        await self._endpoints.close()

    def open(self) -> None:
        try:
            super().open()
        except UserError as error:
            raise UserError(f"{error}; {self._unknown}" if self._unknown else str(error)) from None

    @cached_property
    def named(self) -> list[str]:
        shown = template_fields(self.config.asked, key="utility.rubric")
        return [*shown, "reference"] if self.config.against == "reference" else shown

    def questions(self, split: Split, index: int, answer: str) -> list[tuple[str, Question]]:
        texts = self._texts(split, index, answer)
        asked = [Question(name, text) for name in self.config.judges for text in texts]
        return [(content_hash([*question, self._parameters(question.judge)]), question) for question in asked]

    def _texts(self, split: Split, index: int, answer: str) -> list[str]:
        example = self.shown(split, index, answer)
        if self.config.against is None:
            return [render(self.config.asked, example, key="utility.rubric")]
        other = self._others[split][index] if self._others else example.fields["reference"]
        orders = [{"first": answer, "second": other}, {"first": other, "second": answer}]
        pairs = [replace(example, fields={**example.fields, **order}) for order in orders]
        return [render(self.config.asked, pair, key="utility.rubric") for pair in pairs]

    def _parameters(self, name: str) -> dict[str, Any]:
        """What a judge is asked with, besides the text."""
        judge = self.config.judges[name]
        options = list(self.config.options)
        forms: dict[str, dict[str, Any]] = {
            "choice": {"max_tokens": 8, "structured_outputs": {"choice": options}},
            "json": {"max_tokens": 32, "response_format": verdict_format(options)},
            "expected": {"max_tokens": 1, "logprobs": True, "top_logprobs": 20},
            "text": {"max_tokens": self.config.judge_tokens},
        }
        asked = {"model": judge.model, "temperature": 0.0} | forms[self.config.rating] | judge.parameters
        return {key: value for key, value in asked.items() if value is not None}

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        (question,) = questions
        answer = await self._endpoints.ask(question.judge, question.text, self._parameters(question.judge))
        top = [(token, logprob) for token, logprob in answer.value["top"] if token.strip() in self.config.options]
        return [answer._replace(value=answer.value | {"top": top})]

    def scored(self, answer: str, said: Sequence[Any]) -> Outcome:
        each = len(said) // len(self.config.judges)
        verdicts = [self._score(one, swapped=i % each == 1) for i, one in enumerate(said)]
        statistics: list[float] = []
        for start in range(0, len(verdicts), each):
            scores = [0.0 if score is None else score for score in verdicts[start : start + each]]
            sides = {math.copysign(1, s - 0.5) if s != 0.5 else 0.0 for s in scores}
            good = None not in verdicts[start : start + each] and (each == 1 or len(sides) == 1)
            statistics += [math.fsum(scores) / each, float(good)]
        return Outcome(_mean(statistics[::2]), answer, statistics=tuple(statistics))

    def _score(self, said: Mapping[str, Any], *, swapped: bool) -> float | None:
        """The score of one verdict for the answer; None: it cannot be read, and counts as the lowest.

        Raises:
            Unanswered: it cannot be read, which fails the example.
        """
        score = self._read(said)
        if score is None:
            if self.config.unreadable == "lowest":
                return None
            raise Unanswered(f"a judge gave no rating that can be read, but {said['text'][:100]!r} ({self._advice})")
        return 1 - score if swapped else score

    def _read(self, said: Mapping[str, Any]) -> float | None:
        config, options = self.config, self.config.options
        if config.rating == "expected":
            return expected(said["top"], options, least=config.least_mass)
        text = without_reasoning(said["text"])
        if config.rating == "json":
            return options.get(read_json(text))
        if config.rating == "choice" or config.against is not None:
            verdict = read_verdict(text, list(options))
            return None if verdict is None else options[verdict]
        rating = read_rating(text, lowest=config.lowest, highest=config.highest)
        return None if rating is None else (rating - config.lowest) / (config.highest - config.lowest)

    @property
    def _advice(self) -> str:
        return {
            "choice": "does its server know structured_outputs? Otherwise set utility.rating: expected or text",
            "json": "does its server know response_format? Otherwise set utility.rating: choice, expected or text",
            "expected": "do ratings come first, with top_logprobs? Otherwise set utility.rating: choice or text",
            "text": "does utility.rubric ask for the rating in this form? Is utility.judge_tokens large enough?",
        }[self.config.rating]

    def given(self) -> Outcome:
        score = self.config.empty_score
        assert score is not None
        return Outcome(score, "", statistics=(score, 1.0) * len(self.config.judges))

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        names = ("wins", "consistent") if self.config.against is not None else ("rating", "readable")
        found: dict[str, float] = {}
        for i, judge in enumerate(self.config.judges):
            mean, good = (_mean([row[2 * i + k] for row in statistics]) for k in (0, 1))
            if self.config.against is None:
                mean = self.config.lowest + mean * (self.config.highest - self.config.lowest)
            found |= {f"{names[0]}/{judge}": mean, f"{names[1]}/{judge}": good}
        return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
