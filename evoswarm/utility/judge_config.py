"""Settings of a judge: which models, what they are asked, and how their verdict is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from evoswarm.section import MAY_CHANGE, Rate, Section
from evoswarm.utility.config import Tag
from evoswarm.utility.prompts import template_fields
from evoswarm.utility.service.config import Prices, ServiceTask

RUBRIC = """Rate how well the response answers the question: correct, complete, and helpful.

[Question]
{{question}}

[Response]
{{answer}}

Give a rating from {lowest} (worst) to {highest} (best){form}."""
PAIR_RUBRIC = """Which response answers the question better: is more correct, complete, and helpful? Neither the order
nor the length of the responses matters.

[Question]
{{question}}

[Response A]
{{first}}

[Response B]
{{second}}

Say A if response A is better, B if response B is better, and C if they are equally good{form}."""
PRESETS: dict[str, dict[str, Any]] = {
    "model_swarms": {
        "rubric": "For the following instruction and response, please rate the response on a scale of 1 to 10, where 1 "
        'is the worst and 10 is the best. Please respond with "Rating: ?/10" first and then provide your reason.\n\n'
        "Instruction: {question}\n\nResponse: {answer}",
        "rating": "text",
        "lowest": 1,
        "highest": 10,
        "unreadable": "lowest",
    }
}


class JudgeModel(Section):
    """A model at an OpenAI-compatible endpoint."""

    base_url: Annotated[str, Field(pattern=r"^https?://\S+$"), MAY_CHANGE]
    """The endpoint, such as http://localhost:8000/v1. A resumed run may have another."""
    model: str = Field(min_length=1)
    """The name that the endpoint has for the model."""
    key_env: Annotated[str | None, Field(pattern=r"^\w+$"), MAY_CHANGE] = None
    """Name of the environment variable with the key; null: the endpoint needs none."""
    parameters: dict[str, Any] = {}
    """More parameters of the request, such as {seed: 1}; null removes one that evoswarm sets: {temperature: null}."""
    prices: Annotated[Prices, MAY_CHANGE] = Prices()
    """What the endpoint costs."""


class Recorded(Section):
    """Answers that an earlier run has recorded."""

    run: Path
    """Run directory of a finished run on the same data, whose predictions are whole answers."""
    who: str = "base"
    """Whose answers: base, best_expert, greedy_soup, or ensemble:0, the winner."""


class Judge(ServiceTask):
    """Ratings of models at OpenAI-compatible endpoints, scaled to 0 to 1; the mean of all judges.

    Source: Model Swarms (arXiv 2410.11163), human interests; Zheng et al. (arXiv 2306.05685) for pairs in both orders.
    """

    type: Literal["judge"] = "judge"
    packages: ClassVar[tuple[str, ...]] = ("httpx2", "openai")
    judges: dict[Tag, JudgeModel] = Field(min_length=1)
    """The judges by name."""
    preset: Literal["model_swarms"] | None = None
    """model_swarms: the rubric of Model Swarms, rating: text, 1 to 10, unreadable: lowest. Other keys override it."""
    against: Literal["reference"] | Recorded | None = None
    """Compare each answer with another one, in both orders: 1 for the better one, 0.5 for a tie. reference: the
    example's own `answer`. Or answers that a run has recorded: {run: runs/first, who: base}. null: rate each answer."""
    rubric: str | None = None
    """What a judge is asked: a Python format string over `{question}`, `{answer}`, the answer to rate, `{reference}`,
    the example's own `answer`, and the other fields of the example. With `against`: `{first}` and `{second}`, of which
    one is the answer, and the verdict is A, B, or C for a tie. null: a general one."""
    rating: Literal["choice", "json", "expected", "text"] = "choice"
    """choice: the answer is constrained to the ratings (structured_outputs of vLLM). json: the same as an object of a
    JSON Schema (response_format of OpenAI and others). expected: the mean rating under the probabilities of the first
    token (top_logprobs), which has fewer ties; ratings have one digit. text: read `Rating: 4`, or `[[A]]` with
    `against`, in a free answer."""
    lowest: int = Field(1, ge=0)
    """The worst rating, which becomes 0."""
    highest: int = Field(5, le=100)
    """The best rating, which becomes 1."""
    unreadable: Literal["fail", "lowest"] = "fail"
    """A verdict that cannot be read fails the example, or counts as the lowest rating."""
    least_mass: Rate = 0.5
    """expected: a verdict is unreadable if the ratings together are less likely than this."""
    judge_tokens: int = Field(512, ge=1)
    """text: most tokens of a judge's answer."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        return {**PRESETS[preset], **data} if isinstance(preset, str) and preset in PRESETS else data

    @model_validator(mode="after")
    def _fits(self) -> Judge:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest: {self.lowest} must be below highest: {self.highest}")
        if self.rating == "expected" and self.against is None and self.highest > 9:
            raise ValueError("rating: expected needs ratings of one digit; set highest: 9 or less")
        needed = ["answer"] if self.against is None else ["first", "second"]
        missing = set(needed) - set(template_fields(self.asked, key="rubric"))
        if missing:
            raise ValueError(f"rubric has no {{{sorted(missing)[0]}}}; put it where the judge reads it")
        if self.limits.budget.money is not None and not any(
            judge.prices.input or judge.prices.output or judge.prices.request for judge in self.judges.values()
        ):
            raise ValueError("limits.budget.money needs prices of a judge")
        return self

    @property
    def asked(self) -> str:
        """The rubric in use."""
        if self.rubric is not None:
            return self.rubric
        if self.against is not None:
            form = {"text": ", as [[A]], [[B]] or [[C]]", "json": " (verdict)"}.get(self.rating, ", as one letter")
            return PAIR_RUBRIC.format(form=form)
        form = {"text": ', as "Rating: ?"', "json": " (verdict)"}.get(self.rating, ", as the number alone")
        return RUBRIC.format(lowest=self.lowest, highest=self.highest, form=form)

    @property
    def options(self) -> dict[str, float]:
        """The score of each verdict, for the answer or for the first of two."""
        if self.against is not None:
            return {"A": 1.0, "B": 0.0, "C": 0.5}
        scale = range(self.lowest, self.highest + 1)
        return {str(rating): (rating - self.lowest) / (self.highest - self.lowest) for rating in scale}
