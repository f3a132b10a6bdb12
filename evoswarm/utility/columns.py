"""Finds the columns that `data.columns` names in a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evoswarm.utility.references import is_missing


def column(record: Mapping[str, Any], name: str | list[str]) -> Any:
    """The value of a column, of a path such as `answers.text` or `turns.0.content`, or of several columns by name.

    A path goes through objects and positions of lists; a name on a list of objects gives the list of their values.
    Several columns leave out those that are empty.

    Raises:
        LookupError: the part of the path that is missing, and the keys there.
    """
    if isinstance(name, str):
        return record[name] if name in record else _follow(record, name.split("."))
    values = {path.rpartition(".")[2]: column(record, path) for path in name}
    if len(values) < len(name):
        values = {path: column(record, path) for path in name}
    return {label: value for label, value in values.items() if not is_missing(value) and value != ""}


def _follow(value: Any, parts: list[str]) -> Any:
    if not parts:
        return value
    first, rest = parts[0], parts[1:]
    if isinstance(value, Mapping) and first in value:
        return _follow(value[first], rest)
    if isinstance(value, list | tuple) and first.isdecimal() and int(first) < len(value):
        return _follow(value[int(first)], rest)
    if isinstance(value, list | tuple) and value and not first.isdecimal():
        return [_follow(item, parts) for item in value]
    there = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
    raise LookupError(f"{first!r} is missing; there is {there}")
