"""Answers in JSON: valid, of a schema, and equal to a reference in its fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from evoswarm.errors import UserError, not_installed
from evoswarm.utility.config import Task
from evoswarm.utility.data import Example, resolve
from evoswarm.utility.task import TaskUtility, refuse
from evoswarm.utility.types import Outcome, Response, Split

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class JsonAnswer(Task):
    """Share of answers that are valid JSON, or of the fields that are right in them."""

    type: Literal["json"] = "json"
    json_schema: Path | None = None
    """File with a JSON Schema that the answer must satisfy."""
    fields: list[str] | None = None
    """Fields of the answer that must equal those of the example's `answer`, an object. null: all of its fields. An
    empty list: none, so that a valid answer has a score of 1 and examples need no `answer`."""
    partial: bool = True
    """true: the score is the share of fields that are equal. false: 1 if all of them are, else 0."""


class JsonUtility(TaskUtility[JsonAnswer]):
    """0 for an answer that is not JSON, or does not satisfy the schema; else the share of its fields that are right.

    The answer is the whole text, or the only fenced code block in it. Numbers are equal by value; true is not 1. The
    metric `valid` is the share of answers that are JSON and satisfy the schema.

    Raises:
        UserError: the schema cannot be read or is none, or an example has no object as its answer.
    """

    config_class = JsonAnswer

    def __init__(self, config: JsonAnswer, *, root: Path) -> None:
        self._validator = None if config.json_schema is None else _validator(resolve(config.json_schema, root))
        super().__init__(config, root=root)

    def prepare(self, example: Example) -> Example:
        if self.config.fields == []:
            return example
        answer = example.get("answer")
        value = _decoded(answer) if isinstance(answer, str) else answer
        if not isinstance(value, Mapping):
            raise refuse(example, f"answer {str(answer)[:60]!r} is not a JSON object; or set utility.fields: []")
        missing = [name for name in self.config.fields or value if name not in value]
        if missing or not value:
            raise refuse(example, f"answer has no field {missing[0]!r}" if missing else "answer has no fields")
        if not _is_valid(self._validator, value):
            raise refuse(example, "answer does not satisfy utility.json_schema")
        return replace(example, fields={**example.fields, "answer": value})

    def answer(self, example: Example) -> str:
        return json.dumps(example.get("answer"), ensure_ascii=False)

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert isinstance(response, str)
        value = _decoded(response)
        if value is _INVALID or not _is_valid(self._validator, value):
            return Outcome(0.0, None, statistics=(0.0,))
        return Outcome(self._share(split, index, value), json.dumps(value, ensure_ascii=False), statistics=(1.0,))

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        return {"valid": math.fsum(valid for (valid,) in statistics) / len(statistics)}

    def _share(self, split: Split, index: int, value: Any) -> float:
        """The score of valid JSON."""
        if self.config.fields == []:
            return 1.0
        expected = self._examples[split][index].fields["answer"]
        names = self.config.fields or list(expected)
        found = value if isinstance(value, Mapping) else {}
        right = [name in found and _same(found[name], expected[name]) for name in names]
        return sum(right) / len(right) if self.config.partial else float(all(right))


_INVALID = object()


def _decoded(text: str) -> Any:
    """The value of a JSON text, or of the only code block in it; `_INVALID` if there is none."""
    blocks = _FENCED.findall(text)
    try:
        value = json.loads(blocks[0] if len(blocks) == 1 else text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be recorded
        return value
    except (ValueError, RecursionError):
        return _INVALID


def _refuse(name: str) -> Any:
    """NaN and infinities are no JSON."""
    raise ValueError(name)


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: numbers by value, and true is not 1."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _validator(path: Path) -> Any:
    try:
        import jsonschema
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise not_installed("utility.json_schema", "jsonschema", extra="metrics") from None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        found = jsonschema.validators.validator_for(schema)
        found.check_schema(schema)
    except OSError as error:
        raise UserError(f"utility.json_schema {path}: {error.strerror}") from None
    except (ValueError, AttributeError, jsonschema.SchemaError) as error:
        raise UserError(f"utility.json_schema {path} is not a JSON Schema: {str(error).splitlines()[0]}") from None
    for reference in _references(schema):
        try:
            list(found(schema).descend(None, {"$ref": reference}))
        except (Unresolvable, RecursionError):
            raise UserError(
                f"utility.json_schema {path}: $ref {reference!r} leads to nothing in this file; correct it, or copy "
                "what it means into the file"
            ) from None
    return found(schema)


def _references(schema: Any) -> Iterator[str]:
    """Every $ref in a schema, which a validator looks up only where an answer leads there."""
    if isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    parts = schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ()
    for part in parts:
        yield from _references(part)


def _is_valid(validator: Any, value: Any) -> bool:
    try:
        return validator is None or validator.is_valid(value)
    except RecursionError:  # an answer that is nested too deeply
        return False
