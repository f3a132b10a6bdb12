"""JSON bodies with the fields of examples, for one answer or for several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evoswarm.utility.data import Example
from evoswarm.utility.prompts import render, template_fields

KEY = "utility.body"


def fields_in(body: Any) -> list[str]:
    """The names of the fields in a body, in order.

    Raises:
        UserError: a text of it is no format string.
    """
    found: list[str] = []

    def note(text: str) -> str:
        found.extend(template_fields(text, key=KEY))
        return text

    _mapped(body, note)
    return found


def render_body(body: Any, example: Example) -> Any:
    """The body with the fields of an example in every text.

    Raises:
        UserError: the example has no such field.
    """
    return _mapped(body, lambda text: render(text, example, key=KEY))


def find_item(body: Any) -> tuple[str | int, ...] | None:
    """The way to the innermost list that has a single item with `{answer}`; None if there is none."""
    if isinstance(body, Mapping):
        parts: list[tuple[str | int, Any]] = list(body.items())
    else:
        parts = list(enumerate(body)) if isinstance(body, list) else []
    for key, part in parts:
        if (inner := find_item(part)) is not None:
            return (key, *inner)
    return () if isinstance(body, list) and len(body) == 1 and "answer" in fields_in(body) else None


def item_at(body: Any, way: Sequence[str | int]) -> Any:
    """The first item of the list at the end of the way."""
    for key in way:
        body = body[key]
    return body[0]


def with_items(body: Any, way: Sequence[str | int], items: list[Any]) -> Any:
    """The body with these items in the list at the end of the way."""
    if not way:
        return items
    copy: Any = dict(body) if isinstance(body, Mapping) else list(body)
    copy[way[0]] = with_items(body[way[0]], way[1:], items)
    return copy


def _mapped(body: Any, change: Callable[[str], str]) -> Any:
    if isinstance(body, str):
        return change(body)
    if isinstance(body, Mapping):
        return {key: _mapped(value, change) for key, value in body.items()}
    return [_mapped(item, change) for item in body] if isinstance(body, list) else body
