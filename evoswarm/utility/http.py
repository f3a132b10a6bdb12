"""Scores from any service that takes and gives JSON."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from evoswarm.errors import UserError
from evoswarm.section import MAY_CHANGE
from evoswarm.utility.http_body import fields_in, find_item, item_at, render_body, with_items
from evoswarm.utility.service.account import cost
from evoswarm.utility.service.config import FromEnvironment, Prices, ServiceTask, filled, filled_url
from evoswarm.utility.service.memory import Answer, Unanswered, content_hash
from evoswarm.utility.service.paths import compiled, found, is_number
from evoswarm.utility.service.utility import ServiceUtility
from evoswarm.utility.types import Outcome, Split

_SECRET = re.compile(r"auth|cookie|key|token|secret", re.IGNORECASE)


class Http(ServiceTask):
    """Scores from a service that takes and gives JSON, such as a toxicity classifier. The score is scaled to 0 to 1."""

    type: Literal["http"] = "http"
    packages: ClassVar[tuple[str, ...]] = ("httpx2", "jmespath")
    url: FromEnvironment
    """Where the answers are sent by POST."""
    headers: Annotated[dict[str, FromEnvironment], MAY_CHANGE] = {}
    """Headers of the request, with keys from environment variables: {Authorization: "Bearer $TOXICITY_KEY"}."""
    body: dict[str, Any] | list[Any]
    """The JSON that is sent. Texts in it are Python format strings over `{answer}`, the answer to score, `{reference}`,
    the example's own `answer`, and the other fields of the example. Literal braces are doubled."""
    score: str = Field(min_length=1)
    """JMESPath of the score in the response, such as `results[0].score`; with `batch_size`, of the list of scores."""
    batch_size: int = Field(1, ge=1)
    """Answers of one request. More than 1: the one list in `body` with a single item that has `{answer}` gets an item
    for each answer, and `score` gives one number for each, in the same order."""
    lowest: float = Field(0.0, allow_inf_nan=False)
    """The score that becomes 0. A lower one is an error."""
    highest: float = Field(1.0, allow_inf_nan=False)
    """The score that becomes 1. A higher one is an error."""
    invert: bool = False
    """1 minus the scaled score, if low scores are good."""
    tokens: Annotated[str | None, MAY_CHANGE] = None
    """JMESPath of the number of tokens that a request has cost, for `limits.budget`."""
    prices: Annotated[Prices, MAY_CHANGE] = Prices()
    """What requests cost; `tokens` are input."""

    def check(self, root: Path) -> None:
        """See `UtilityConfig.check`."""
        super().check(root)
        self.paths()

    def paths(self) -> tuple[Any, Any]:
        """The JMESPaths of `score` and of `tokens`.

        Raises:
            UserError: one is broken.
        """
        tokens = None if self.tokens is None else compiled(self.tokens, key="utility.tokens")
        return compiled(self.score, key="utility.score"), tokens

    @field_validator("body")
    @classmethod
    def _is_json(cls, value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"is no JSON ({error}); put quotes around dates and the like") from None
        return value

    @field_validator("headers")
    @classmethod
    def _secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if _SECRET.search(name) and not list(Template(text).get_identifiers()):
                raise ValueError(f'{name} looks like a secret; take it from the environment: {{{name}: "$NAME"}}')
        return value

    @model_validator(mode="after")
    def _fits(self) -> Http:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest: {self.lowest:g} must be below highest: {self.highest:g}")
        if "answer" not in fields_in(self.body):
            raise ValueError("body has no {answer}; put it where the service expects the text")
        budget = self.limits.budget
        if budget.tokens is not None and self.tokens is None:
            raise ValueError("limits.budget.tokens needs tokens, the JMESPath of their number in the response")
        if budget.money is not None and not (self.prices.request or (self.prices.input and self.tokens)):
            raise ValueError("limits.budget.money needs prices.request, or prices.input with tokens")
        if self.batch_size == 1:
            return self
        way = find_item(self.body)
        if way is None:
            raise ValueError('batch_size needs a list in body with a single item that has {answer}: ["{answer}"]')
        if outside := fields_in(with_items(self.body, way, [])):
            raise ValueError(f"batch_size: {{{outside[0]}}} in body is outside of the list, which is sent once")
        return self


class HttpUtility(ServiceUtility[Http, Any]):
    """The mean of the scores. The prediction is the answer, so there are no votes.

    Raises:
        UserError: an example lacks a field of the body.
    """

    config_class = Http

    def __init__(self, config: Http, *, root: Path) -> None:
        super().__init__(config, root=root)
        self._way = find_item(config.body) if config.batch_size > 1 else None

    @property
    def batch(self) -> int:
        return self.config.batch_size

    async def connect(self) -> None:
        from evoswarm.utility.service.client import Client

        self._score, self._tokens = self.config.paths()
        self._url = filled_url(self.config.url, key="utility.url")
        headers = {name: filled(text, key=f"utility.headers.{name}") for name, text in self.config.headers.items()}
        names = [name for text in self.config.headers.values() for name in Template(text).get_identifiers()]
        hide = tuple(os.environ[name] for name in names)
        self._client = Client(self.config.limits, self._account, headers=headers, hide=hide)

    async def check(self) -> None:
        await self._client.reach("HEAD", self._url)

    async def disconnect(self) -> None:
        await self._client.aclose()

    @cached_property
    def named(self) -> list[str]:
        return fields_in(self.config.body)

    def questions(self, split: Split, index: int, answer: str) -> list[tuple[str, Any]]:
        example = self.shown(split, index, answer)
        body = render_body(self.config.body, example)
        return [(content_hash([self.config.url, self.config.score, body]), body)]

    async def ask(self, questions: Sequence[Any]) -> list[Answer]:
        body = questions[0]
        if self._way is not None:
            body = with_items(body, self._way, [item_at(question, self._way) for question in questions])
        response = await self._client.post(self._url, json=body)
        content = response.json()
        values = found(self._score, content)
        if not isinstance(values, list):
            values = [values]
        if len(values) != len(questions):
            problem = f"utility.score finds {len(values)} scores for {len(questions)} answers"
            if len(questions) > 1:
                raise Unanswered(problem)
            values = [problem]
        tokens = found(self._tokens, content) if self._tokens is not None else 0
        if not is_number(tokens):
            raise UserError(f"utility.tokens finds no number in {response.text[:200]}; correct it")
        usages = [cost(self.config.prices, input_tokens=math.ceil(tokens)), *[cost(Prices())] * (len(values) - 1)]
        answers = zip(values, usages, strict=True)
        line = " ".join(response.text.split())[:200]
        return [Answer(v if is_number(v) else f"{v!r:.60} in {line}", usage) for v, usage in answers]

    def scored(self, answer: str, said: Sequence[Any]) -> Outcome:
        (value,) = said
        if isinstance(value, str):
            raise Unanswered(f"utility.score finds {value}, which is not a number")
        low, high = self.config.lowest, self.config.highest
        if not low <= value <= high:
            raise Unanswered(
                f"the score {value:g} is not in the range from utility.lowest: {low:g} to highest: {high:g}"
            )
        share = (value - low) / (high - low)
        return Outcome(1 - share if self.config.invert else share, answer)
