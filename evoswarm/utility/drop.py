"""F1 of DROP: answers that are numbers, dates, or one or several spans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from evoswarm.utility.config import Task
from evoswarm.utility.data import Example
from evoswarm.utility.drop_f1 import drop_scores, normalized_span
from evoswarm.utility.references import content_of, is_missing, plain_number, read_references
from evoswarm.utility.task import TaskUtility, refuse
from evoswarm.utility.types import Outcome, Response, Split

Spans = tuple[str, ...]
"""One reference: the spans of which all are needed."""


class Drop(Task):
    """F1 of DROP (Dua et al., 2019, arXiv 1903.00161), mean over examples.

    Of several references the best counts. The metric `exact_match` is the share of answers that equal a reference.
    """

    type: Literal["drop"] = "drop"
    spans: Literal["all", "any"] | None = None
    """What several spans of `answers_spans` are, which the file does not say. all: the parts of one answer. any: the
    answers of several people. null: refuse them."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Text between the spans of a model's answer, such as `", "`. null: the whole answer is one span, as in
    lm-evaluation-harness."""


class DropUtility(TaskUtility[Drop]):
    """The mean F1, 0 to 1, as the official script and lm-evaluation-harness compute it.

    The field `answer` is an object with `number`, `date` and `spans`, to which `validated_answers` adds those of other
    people; an object of `spans` and `types`, which can also be in the field `answers_spans`; a text or a number; or a
    list of references, each a text or the list of its spans. It becomes a list of references.

    Raises:
        UserError: a reference is missing, or several spans can be one answer or several.
    """

    config_class = Drop

    def prepare(self, example: Example) -> Example:
        fields = example.fields
        source = "answers_spans" if is_missing(fields.get("answer")) and "answers_spans" in fields else "answer"
        others = _people(fields.get("validated_answers") if isinstance(fields.get("answer"), Mapping) else None)
        try:
            found = [spans for value in (example.get(source), *others) for spans in self._references(value)]
        except ValueError as problem:
            raise refuse(example, problem) from None
        references = [spans for spans in dict.fromkeys(found) if any(map(normalized_span, spans))]
        if not references:
            raise refuse(example, f"answer {str(fields.get(source))[:60]!r} is empty; remove records without an answer")
        return replace(example, fields={**fields, "answer": references})

    def answer(self, example: Example) -> str:
        return (self.config.separator or ", ").join(example.fields["answer"][0])

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert isinstance(response, str)
        text = response.strip()
        found = [part.strip() for part in text.split(self.config.separator)] if self.config.separator else [text]
        references: list[Spans] = self._examples[split][index].fields["answer"]
        scores = [drop_scores(found, spans) for spans in references]
        return Outcome(max(f1 for _, f1 in scores), text, statistics=(max(exact for exact, _ in scores),))

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        return {"exact_match": math.fsum(exact for (exact,) in statistics) / len(statistics)}

    def _references(self, answer: Any) -> Iterator[Spans]:
        """The references in one answer of a record."""
        if isinstance(answer, str) and answer.lstrip().startswith("{"):
            answer = _object(answer)
        if isinstance(answer, Mapping):
            yield from self._of_object(answer)
        elif isinstance(answer, list | tuple):
            yield from (_texts(item) if isinstance(item, list | tuple) else (_text(item),) for item in answer)
        else:
            yield (_text(answer),)

    def _of_object(self, answer: Mapping[str, Any]) -> Iterator[Spans]:
        if not {"number", "date", "spans"} & set(answer):
            keys = ", ".join(map(str, answer))
            raise ValueError(f"answer is an object with the keys {keys}; it needs number, date or spans")
        number, spans = answer.get("number"), _texts(_listed(answer.get("spans")))
        if number is not None and number != "":
            yield (_text(number),)
        elif "types" in answer:
            yield from self._typed(spans, _texts(_listed(answer["types"])))
        elif spans:
            yield spans
        elif day := _date(answer.get("date")):
            yield (day,)

    def _typed(self, spans: Spans, types: Spans) -> Iterator[Spans]:
        """Spans with their types: numbers and dates are whole references, of spans it may be unknown."""
        if len(types) != len(spans):
            raise ValueError(f"answer has {len(spans)} spans and {len(types)} types")
        yield from ((span,) for span, kind in zip(spans, types, strict=True) if kind != "span")
        plain = tuple(dict.fromkeys(span for span, kind in zip(spans, types, strict=True) if kind == "span"))
        if len(plain) > 1 and self.config.spans is None:
            raise ValueError(
                f"answer has the spans {', '.join(map(repr, plain))[:60]}; set utility.spans: all if they are the "
                "parts of one answer, or any if each is an answer"
            )
        yield from [plain] if self.config.spans == "all" and plain else [(span,) for span in plain]


def _people(answers: Any) -> Iterator[Any]:
    """The answers in `validated_answers`: a list of objects, or one object of lists as datasets stores it."""
    if isinstance(answers, Mapping):
        columns = [_listed(answers.get(key)) for key in ("number", "date", "spans")]
        for number, date, spans in zip(*columns, strict=True):
            yield {"number": number, "date": date, "spans": spans}
    else:
        yield from _listed(answers)


def _object(text: str) -> Any:
    """The object that a cell of a table holds as text."""
    content = content_of(text)
    if not isinstance(content, Mapping):
        raise ValueError(f"answer {text[:60]!r} is the print of an object; save the data as JSONL or Parquet")
    return content


def _listed(value: Any) -> list[Any]:
    return [] if is_missing(value) else list(value)


def _texts(values: Sequence[Any]) -> Spans:
    return tuple(map(_text, values))


def _text(value: Any) -> str:
    """A number or a span as text."""
    return plain_number(value).strip() if isinstance(value, str | int | float) else read_references(value)[0]


def _date(value: Any) -> str:
    parts = [value.get(key) for key in ("day", "month", "year")] if isinstance(value, Mapping) else []
    return " ".join(plain_number(part) for part in parts if not is_missing(part) and part != "")
