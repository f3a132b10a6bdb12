"""Values between a program and its tests as JSON, so that nothing that the program made runs next to the tests.

Plain values are copied. Everything else stays where it is, and the other side gets a number that stands for it.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

Number = Callable[[Any], Any]
"""The number of an object that stays, or the object of a number."""

_PLAIN: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}
_BUILD: dict[str, Callable[..., Any]] = {
    "tuple": lambda *items: items,
    "set": lambda *items: set(items),
    "frozenset": lambda *items: frozenset(items),
    "dict": lambda *pairs: dict(pairs),
    "bytes": lambda text: text.encode("latin-1"),
    "bytearray": lambda text: bytearray(text, "latin-1"),
    "complex": complex,
    "range": range,
    "slice": slice,
    "ellipsis": lambda: ...,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": datetime.timedelta,
}
_PARTS: list[tuple[type, str, Callable[[Any], list[Any]]]] = [
    (tuple, "tuple", list),
    (set, "set", list),
    (frozenset, "frozenset", list),
    (dict, "dict", lambda value: [tuple(pair) for pair in dict.items(value)]),
    (bytes, "bytes", lambda value: [value.decode("latin-1")]),
    (bytearray, "bytearray", lambda value: [value.decode("latin-1")]),
    (complex, "complex", lambda value: [value.real, value.imag]),
    (range, "range", lambda value: [value.start, value.stop, value.step]),
    (slice, "slice", lambda value: [value.start, value.stop, value.step]),
    (type(...), "ellipsis", lambda value: []),
    (Decimal, "Decimal", lambda value: [str(value)]),
    (Fraction, "Fraction", lambda value: [value.numerator, value.denominator]),
    (datetime.datetime, "datetime", lambda value: [value.isoformat()]),
    (datetime.date, "date", lambda value: [value.isoformat()]),
    (datetime.time, "time", lambda value: [value.isoformat()]),
    (datetime.timedelta, "timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
]


def encode(value: Any, number: Number) -> Any:
    """A value as JSON. A value of a subclass, such as a named tuple, loses its class.

    Args:
        value: anything.
        number: gives an object that stays its tag, such as {"there": 3}.
    """
    if value is None or isinstance(value, bool):
        return value
    for plain, convert in _PLAIN.items():
        if isinstance(value, plain):
            return convert(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, list):
        return [encode(item, number) for item in list.__iter__(value)]
    for kind, tag, parts in _PARTS:
        if isinstance(value, kind):
            return {tag: [encode(part, number) for part in parts(value)]}
    if type(value).__module__ == "numpy":
        return encode(value.tolist(), number)
    return number(value)


def decode(value: Any, find: Number) -> Any:
    """The value of JSON from `encode`.

    Raises:
        ValueError: it is nothing that `encode` writes.
    """
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("not a value")
    [(tag, parts)] = value.items()
    if tag in _BUILD and isinstance(parts, list):
        return _BUILD[tag](*(decode(part, find) for part in parts))
    return find(value)


def update(old: Any, new: Any) -> Any:
    """Change the lists, dicts, sets and byte arrays in `old` in place to those of `new`; returns what is then there."""
    if type(old) is not type(new) or old is new:
        return new
    if isinstance(old, list):
        old[:] = [update(a, b) for a, b in zip(old, new)] + new[len(old) :]  # noqa: B905  lengths differ
    elif isinstance(old, dict):
        items = {key: update(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(items)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new
    else:
        for a, b in zip(old, new) if isinstance(old, tuple) else ():  # noqa: B905
            update(a, b)
        return new
    return old
