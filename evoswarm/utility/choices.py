"""Reads the options of a multiple-choice record in all common formats, and the correct option."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choices:
    """Options in order, by the letter in the prompt and by the label in the file."""

    texts: dict[str, str]
    """Letter to text."""
    labels: dict[str, str]
    """The file's label to letter."""

    def lettered(self) -> str:
        """One line per option: `A. text`."""
        return "\n".join(f"{letter}. {text}" for letter, text in self.texts.items())

    def letter_of(self, answer: Any) -> str:
        """The letter of the correct option.

        A number is a label or an index from 0. Text is tried as a label, a letter, an option's text, a lowercase letter
        and an index, in this order.

        Raises:
            ValueError: the answer matches no option, or several.
        """
        if isinstance(answer, float) and answer.is_integer():
            answer = int(answer)
        given = str(answer).strip()
        if given in self.labels or given in self.texts:
            return self.labels.get(given, given)
        index = int(given) if given.isdecimal() and given.isascii() else len(self.texts)
        found = set() if isinstance(answer, int) else {k for k, text in self.texts.items() if text.strip() == given}
        if not found and given.upper() in self.texts:
            found = {given.upper()}
        if not isinstance(answer, bool) and index < len(self.texts):
            found.add(list(self.texts)[index])
        if len(found) > 1:
            raise ValueError(f"answer {given[:60]!r} can mean the options {', '.join(sorted(found))}; give the letter")
        if not found:
            raise ValueError(f"answer {given[:60]!r} is not among the choices {', '.join(self.labels)}")
        return found.pop()


def read_choices(value: Any) -> Choices:
    """Parse `{A: text, ...}`, `[text, ...]`, `{text: [...], label: [...]}`, or one of these as JSON text.

    Skips null entries of a mapping, with which columnar files pad records that have fewer options. Labels that are not
    single capital letters are shown as A, B, ... by position.

    Raises:
        ValueError: the format is unknown, or there are not 2 to 26 options.
    """
    pairs = _pairs(_parsed(value))
    if not 2 <= len(pairs) <= len(string.ascii_uppercase):
        raise ValueError(f"2 to 26 choices are needed, got {len(pairs)}")
    labels = [label for label, _ in pairs]
    if len(set(labels)) < len(labels):
        raise ValueError(f"choices have repeated labels: {', '.join(labels)}")
    own = all(label in string.ascii_uppercase and len(label) == 1 for label in labels)
    letters = labels if own else string.ascii_uppercase[: len(labels)]
    texts = {letter: text for letter, (_, text) in zip(letters, pairs, strict=True)}
    return Choices(texts, dict(zip(labels, letters, strict=True)))


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError(f'choices {value[:60]!r} are text; write them as JSON, as in ["red", "blue"]') from None


def _pairs(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and set(value) == {"text", "label"} and isinstance(value["text"], list):
        if len(value["text"]) != len(value["label"]):
            raise ValueError(f"choices have {len(value['text'])} texts and {len(value['label'])} labels")
        return [(str(label), _option(text)) for label, text in zip(value["label"], value["text"], strict=True)]
    if isinstance(value, Mapping):
        return [(str(label), _option(text)) for label, text in value.items() if text is not None]
    if isinstance(value, list | tuple):
        return [(string.ascii_uppercase[i : i + 1] or str(i), _option(text)) for i, text in enumerate(value)]
    raise ValueError(f"choices must be a mapping or a list, not {type(value).__name__}")


def _option(text: Any) -> str:
    if text is None or isinstance(text, Mapping | list) or not str(text).strip():
        raise ValueError(f"a choice is empty or not text: {text!r}")
    return str(text)
