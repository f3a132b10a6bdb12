"""Decides what the answers of a multiple-choice data set mean where each alone could mean several options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evoswarm.utility.choices import Choices, Reading, whole_number

READINGS: tuple[Reading, ...] = ("label", 0, 1, "text")


def are_texts(answers: Sequence[tuple[Choices, Any, str]], base: Reading | None) -> bool:
    """Whether answers that are text are options' texts, and not their labels, where they can be both.

    The options O, A, B, AB with the answer A are an example. A reading counts if it fits all answers.

    Args:
        answers: (options, answer, place in the file) of all records.
        base: The user's choice.

    Raises:
        ValueError: both readings fit; the message starts with the place.
    """
    given = [(c, a.strip(), where) for c, a, where in answers if isinstance(a, str) and whole_number(a) is None]
    both = [(c, a, where) for c, a, where in given if c.with_label(a) and c.with_text(a) - c.with_label(a)]
    if not both or base is not None:
        return base == "text"
    labels, texts = (all(fits(c, a) for c, a, _ in given) for fits in (Choices.with_label, Choices.with_text))
    if labels == texts:
        choices, answer, where = both[0]
        means: dict[Reading, set[str]] = {"label": choices.with_label(answer), "text": choices.with_text(answer)}
        raise ValueError(f"{where}: answer {answer} can be {_described(choices, means)}; set utility.label_base")
    return texts


def number_reading(answers: Sequence[tuple[Choices, Any, str]], base: Reading | None) -> Reading | None:
    """How the numbers among the answers of a data set are to be read; None if there are none.

    A reading counts if it fits all answers. An answer of 0 rules out counting from 1, and an answer as large as the
    number of options rules out counting from 0.

    Args:
        answers: (options, answer, place in the file) of all records.
        base: The user's choice.

    Raises:
        ValueError: several readings fit and disagree, or none fits; the message starts with the place.
    """
    numbered = [(c, n, where) for c, answer, where in answers if (n := whole_number(answer)) is not None]
    if not numbered:
        return None
    if base is not None:
        return base
    fitting = [r for r in READINGS if all(choices.read(number, r) for choices, number, _ in numbered)]
    if fitting[:1] == ["label"]:
        return "label"
    for choices, number, where in numbered:
        means = {r: choices.read(number, r) for r in (fitting or READINGS)}
        if not any(means.values()):
            advice = "correct the record or map its fields with data.columns"
            raise ValueError(
                f"{where}: answer '{number}' is not among the choices {', '.join(choices.labels)}; {advice}"
            )
        if fitting and len(set(map(frozenset, means.values()))) > 1:
            raise ValueError(f"{where}: answer {number} can be {_described(choices, means)}; set utility.label_base")
    if not fitting:
        choices, number, where = numbered[0]
        means = {r: letters for r in READINGS if (letters := choices.read(number, r))}
        raise ValueError(
            f"{where}: answer {number} can be {_described(choices, means)}, but no reading fits all records; set "
            "utility.label_base to find those that it does not fit"
        )
    return fitting[0]


def _described(choices: Choices, means: Mapping[Reading, Iterable[str]]) -> str:
    names = {
        "label": "label (label_base: label)",
        0: "counted from 0 (label_base: 0)",
        1: "counted from 1 (label_base: 1)",
    }
    names["text"] = "an option's text (label_base: text)"
    return " or ".join(
        f"{', '.join(f'{letter} ({choices.texts[letter][:30]!r})' for letter in sorted(letters))} as {names[r]}"
        for r, letters in means.items()
    )
