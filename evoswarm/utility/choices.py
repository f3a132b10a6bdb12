"""Reads the options of a multiple-choice record in all common formats, and the correct option."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evoswarm.utility.references import content_of, is_missing, plain_number

Reading = Literal["label", 0, 1, "text"]
"""What a number as answer means: a label of the file, a position counted from 0 or from 1, or an option's text."""


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

    def letter_of(self, answer: Any, reading: Reading | None = None, *, texts: bool = False) -> str:
        """The letter of the correct option.

        A number is read as `reading` says. Text is tried as a label or letter (with `texts` only after the next), an
        option's text, and a label or letter in the other case or with punctuation, in this order. Zeros and a one mark
        the option. True is the option `yes` or `true`.

        Raises:
            ValueError: the answer matches no option, or several.
        """
        answer = self._marked(answer)
        number = whole_number(answer)
        if number is not None and reading is not None:
            found = self.read(number, reading)
        else:
            given = str(answer).strip()
            found = (texts and self.with_text(given)) or self._letters_of(given)
            if not found and isinstance(answer, bool):
                words = ("yes", "true") if answer else ("no", "false")
                found = {letter for letter, text in self.texts.items() if text.strip().lower() in words}
        if len(found) > 1:
            raise ValueError(f"answer {answer!r:.60} can mean the options {', '.join(sorted(found))}; give the letter")
        if not found:
            raise ValueError(f"answer {str(answer)[:60]!r} is not among the choices {', '.join(self.labels)}")
        return found.pop()

    def read(self, number: int, reading: Reading) -> set[str]:
        """The letters that a number can mean; more than one if options are equal."""
        if reading == "label":
            return {letter for label, letter in self.labels.items() if whole_number(label) == number}
        if reading == "text":
            return {letter for letter, text in self.texts.items() if whole_number(text) == number}
        return set(list(self.texts)[number - reading : number - reading + 1]) if number >= reading else set()

    def with_label(self, given: str) -> set[str]:
        """The letter of the option with this label or letter."""
        return {self.labels.get(given, given)} if given in self.labels or given in self.texts else set()

    def with_text(self, given: str) -> set[str]:
        """The letters of the options with this text."""
        return {letter for letter, text in self.texts.items() if text.strip() == given}

    def _letters_of(self, given: str) -> set[str]:
        if labeled := self.with_label(given):
            return labeled
        same = self.with_text(given)
        bare = _bare(given).casefold()
        loose = {letter for label, letter in self.labels.items() if bare == _bare(label).casefold()}
        loose = loose or {bare.upper()} & set(self.texts)
        lettered = {
            letter
            for letter, text in self.texts.items()
            if re.fullmatch(rf"\(?{letter}[.):]+\s*{re.escape(text.strip())}", given)
        }
        return same or loose or lettered

    def _marked(self, answer: Any) -> Any:
        if isinstance(answer, Mapping) and list(map(str, answer)) == list(self.texts.values()):
            answer = list(answer.values())
        if not isinstance(answer, list | tuple):
            return answer
        if len(answer) == 1:
            return answer[0]
        if len(answer) == len(self.texts) and all(mark in (0, 1) for mark in answer) and sum(answer) == 1:
            return list(self.texts)[answer.index(1)]
        raise ValueError(f"answer {str(answer)[:60]} is a list; one option must be right")


def whole_number(value: Any) -> int | None:
    """A whole number from 0 that a value is, as a number or as text (`1`, `1.0`)."""
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not re.fullmatch(r"\d{1,18}(?:\.0+)?", text):
        return None
    return int(text.partition(".")[0])


def read_choices(value: Any) -> Choices:
    """Parse `{A: text, ...}`, `[text, ...]`, `[{label, text}, ...]`, `{text: [...], label: [...]}`, or JSON text.

    Skips null entries of a mapping, with which columnar files pad records that have fewer options. Labels that are not
    single letters are shown as A, B, ... by position.

    Raises:
        ValueError: the format is unknown, or there are not 2 to 26 options.
    """
    pairs = _pairs(_parsed(value))
    if not 2 <= len(pairs) <= len(string.ascii_uppercase):
        raise ValueError(f"2 to 26 choices are needed, got {len(pairs)}")
    labels = [label for label, _ in pairs]
    bare = [_bare(label).upper() for label in labels]
    if len(set(labels)) < len(labels):
        raise ValueError(f"choices have repeated labels: {', '.join(labels)}")
    own = all(len(letter) == 1 and letter in string.ascii_uppercase for letter in bare) and len(set(bare)) == len(bare)
    letters = bare if own else list(string.ascii_uppercase[: len(labels)])
    texts = {letter: text for letter, (_, text) in zip(letters, pairs, strict=True)}
    return Choices(texts, dict(zip(labels, letters, strict=True)))


def _bare(label: str) -> str:
    """A label without the punctuation around it: `(A)`, `A.`, `A)`."""
    return label.strip().strip("()[].:").strip()


def _parsed(value: Any) -> Any:
    content = content_of(value) if isinstance(value, str) else value
    if content is None:
        raise ValueError(f'choices {str(value)[:60]!r} are text; write them as JSON, as in ["red", "blue"]')
    return content


_TEXTS = ("text", "texts", "choices", "options", "value")
_LABELS = ("label", "labels", "key", "keys", "id")


def _pairs(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and len(value) == 2:
        texts = next((value[key] for key in _TEXTS if isinstance(value.get(key), list | tuple)), None)
        labels = next((value[key] for key in _LABELS if isinstance(value.get(key), list | tuple)), None)
        if texts is not None and labels is not None:
            if len(texts) != len(labels):
                raise ValueError(f"choices have {len(texts)} texts and {len(labels)} labels")
            return [(plain_number(label), _option(text)) for label, text in zip(labels, texts, strict=True)]
    if isinstance(value, Mapping) and _marks(value):
        value = list(value)
    if isinstance(value, Mapping):
        return [(str(label), _option(text)) for label, text in value.items() if not is_missing(text)]
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return [_pair(item) for item in value]
    if isinstance(value, list | tuple):
        return [(string.ascii_uppercase[i : i + 1] or str(i), _option(text)) for i, text in enumerate(value)]
    raise ValueError(f"choices must be a mapping or a list, not {type(value).__name__}")


def _marks(value: Mapping[str, Any]) -> bool:
    """Whether the options are the keys, as in TruthfulQA's own files: {"It rains": 1, "It snows": 0}."""
    longer = any(len(_bare(str(label))) > 3 for label in value)
    return longer and all(type(mark) is int and mark in (0, 1) for mark in value.values())


def _pair(item: Mapping[str, Any]) -> tuple[str, str]:
    text, label = (next((item[key] for key in keys if key in item), None) for keys in (_TEXTS, _LABELS))
    if is_missing(text) or is_missing(label):
        raise ValueError(f"a choice is an object with the keys {', '.join(item)}; it needs label and text")
    return plain_number(label), _option(text)


def _option(text: Any) -> str:
    if is_missing(text) or isinstance(text, Mapping | list) or not str(text).strip():
        raise ValueError(f"a choice is empty or not text: {text!r}")
    return plain_number(text)
