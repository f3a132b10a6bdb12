"""Accuracy on questions with lettered options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Literal

import numpy as np
from pydantic import Field

from evoswarm.errors import UserError
from evoswarm.utility.choices import Reading, read_choices
from evoswarm.utility.config import Task
from evoswarm.utility.data import Example
from evoswarm.utility.locate import Place, letter_place
from evoswarm.utility.parsing import normalize, parse_choice
from evoswarm.utility.prompts import delimiter, with_choices
from evoswarm.utility.readings import are_texts, number_reading
from evoswarm.utility.reasoning import opened, options_inside
from evoswarm.utility.task import refuse
from evoswarm.utility.types import Choose, OptionScore, Outcome, Prompt, Request, Response, Split, Turns
from evoswarm.utility.votable import VotableUtility


class MultipleChoice(Task):
    """Accuracy on questions with lettered options."""

    type: Literal["multiple_choice"] = "multiple_choice"
    method: Literal["loglikelihood", "generate"] = "loglikelihood"
    """Choose the most likely option, or parse the option from generated text."""
    options: Literal["letters", "texts"] = "letters"
    """loglikelihood: score the letters A, B, ... or the options' texts."""
    normalize: Literal["none", "bytes", "tokens"] = "none"
    """loglikelihood: divide by the option's length (lm-eval's acc_norm is `bytes`)."""
    label_base: Literal[0, 1, "label", "text"] | None = None
    """What an answer means that can be several options. A number: the option's position, counted from 0 or from 1, the
    file's label, or the option's text. A letter: the label or the text. null: what fits all records."""
    max_new_tokens: int = Field(16, ge=1)
    """generate: maximum length of the answer."""

    @property
    def unmixable(self) -> str | None:
        """See `UtilityConfig`. A length divides a log-likelihood of one model, and not a mix of probabilities."""
        if self.method == "generate":
            return "method generate writes answers; set utility.method: loglikelihood"
        if self.normalize != "none":
            return f"normalize {self.normalize} divides by lengths; set utility.normalize: none"
        return None


class MultipleChoiceUtility(VotableUtility[MultipleChoice]):
    """1.0 if the most likely option, or the option parsed from generated text, is correct.

    loglikelihood: argmax over options of log P(option | prompt), or of that divided by the option's length in bytes
    (without the space before it) or in tokens; the first of equal options. The prediction is always the letter.

    Options are letters unless `options: texts`; then they are shown in the prompt (see `with_choices`). The field
    `choices` and the field `answer` may have any of the shapes that `read_choices` and `Choices.letter_of` understand.
    """

    config_class = MultipleChoice
    _reading: Reading | None = None
    _texts: bool = False

    def template(self) -> str:
        return with_choices(super().template()) if self._letters else super().template()

    def survey(self, examples: Sequence[Example]) -> None:
        answers = []
        for example in examples:
            try:
                answers.append((read_choices(example.get("choices")), example.get("answer"), example.where))
            except ValueError as problem:
                raise refuse(example, problem) from None
        try:
            self._reading = number_reading(answers, self.config.label_base)
            self._texts = are_texts(answers, self.config.label_base)
        except ValueError as problem:
            raise UserError(str(problem)) from None

    def prepare(self, example: Example) -> Example:
        value, answer = example.get("choices"), example.get("answer")
        try:
            choices = read_choices(value)
            letter = choices.letter_of(answer, self._reading, texts=self._texts)
            fields = {**example.fields, "choices": choices.texts, "answer": letter}
        except ValueError as problem:
            raise refuse(example, problem) from None
        return replace(example, fields=fields)

    def answer(self, example: Example) -> str:
        letter: str = example.fields["answer"]
        return letter if self._letters else example.fields["choices"][letter]

    def request(self, example: Example, prompt: Prompt) -> Request:
        if self.config.method == "generate":
            return super().request(example, prompt)
        if isinstance(prompt, str) and (tag := opened(prompt, self.reasoning_tags)):
            raise options_inside(tag, example.where)
        space = delimiter(prompt)
        return Choose(prompt, tuple(space + option for option in self._options(example)))

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        example = self._examples[split][index]
        if isinstance(response, str):
            return self.judge(split, index, parse_choice(response, example.fields["choices"]))
        assert not isinstance(response, Turns)
        logprobs = tuple(option.logprob for option in response)
        values = [self._value(*pair) for pair in zip(response, self._options(example), strict=True)]
        if any(math.isnan(value) or value == math.inf for value in values):
            return Outcome(None, None, f"{example.where}: the log-likelihoods of the options are not numbers")
        outcome = self.judge(split, index, list(example.fields["choices"])[values.index(max(values))])
        return replace(outcome, logprobs=logprobs)

    def read(self, answer: str) -> str | None:
        """The letter, or with `options: texts` the text of the option."""
        if self._letters:
            return parse_choice(answer, dict.fromkeys(ascii_uppercase, ""))
        return normalize(answer, ignore_case=True, ignore_punctuation=True) or None

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        fields = self._examples[split][index].fields
        if self.config.method == "generate":
            return super().gold_logprob(split, index, logprobs)
        if len(logprobs) != len(fields["choices"]):
            return math.nan
        right = list(fields["choices"]).index(fields["answer"])
        return float(logprobs[right] - np.logaddexp.reduce(logprobs))

    def locate(self, split: Split, index: int, text: str) -> tuple[Place, str] | None:
        fields = self._examples[split][index].fields
        letter = parse_choice(text, fields["choices"])
        place = None if letter is None else letter_place(text, letter)
        return None if place is None else (place, fields["answer"])

    def score(self, split: Split, index: int, prediction: str) -> float:
        return float(prediction == self._examples[split][index].fields["answer"])

    @property
    def _letters(self) -> bool:
        return self.config.method == "generate" or self.config.options == "letters"

    def _options(self, example: Example) -> Sequence[str]:
        choices: dict[str, str] = example.fields["choices"]
        return list(choices) if self._letters else [text.strip() for text in choices.values()]

    def _value(self, score: OptionScore, option: str) -> float:
        lengths = {"none": 1, "bytes": len(option.encode()), "tokens": max(score.tokens, 1)}
        return score.logprob / lengths[self.config.normalize]
