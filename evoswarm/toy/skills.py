"""Synthetic skills: pure functions from a random generator to a question and its answer.

Five skills transform a string, two work on numbers, three recall facts about made-up people.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LETTERS = "abcdefghij"
FACTS = {
    "eats": ("figs", "oats", "eggs", "nuts", "peas", "rice", "corn", "beef", "kale", "plum", "soup", "cake"),
    "home": ("oslo", "lima", "rome", "bonn", "cork", "nice", "bath", "york", "kiel", "graz", "pisa", "faro"),
    "work": ("cook", "maid", "monk", "page", "bard", "poet", "serf", "king", "duke", "sage", "aide", "guru"),
}


@dataclass(frozen=True)
class Example:
    """One question, its answer, and the skill it tests.

    Example:
        Example("rev dbac", "cabd", "rev")
    """

    question: str
    answer: str
    skill: str


Skill = Callable[[random.Random], Example]


def rev(text: str) -> str:
    """The text reversed."""
    return text[::-1]


def order(text: str) -> str:
    """The letters in alphabetical order."""
    return "".join(sorted(text))


def shift(text: str) -> str:
    """Each letter replaced by the next one in `LETTERS`; the last wraps around to the first."""
    return "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in text)


def rotate(text: str) -> str:
    """The first letter moved to the end."""
    return text[1:] + text[:1]


def swap(text: str) -> str:
    """The first and the last letter swapped; the string has at least two letters."""
    return text[-1] + text[1:-1] + text[0]


TRANSFORMS: dict[str, Callable[[str], str]] = {"rev": rev, "sort": order, "next": shift, "rot": rotate, "swap": swap}


def transform(name: str, *, lengths: Sequence[int] = (4, 5)) -> Skill:
    """The skill of applying one of `TRANSFORMS` to a random string, with a length from `lengths`."""

    def draw(rng: random.Random) -> Example:
        text = "".join(rng.choices(LETTERS, k=rng.choice(lengths)))
        return Example(f"{name} {text}", TRANSFORMS[name](text), name)

    return draw


def add(rng: random.Random) -> Example:
    """The sum of two numbers of up to two digits."""
    a, b = rng.randint(1, 99), rng.randint(1, 99)
    return Example(f"add {a} {b}", str(a + b), "add")


def largest(rng: random.Random) -> Example:
    """The largest of three two-digit numbers."""
    numbers = [rng.randint(10, 99) for _ in range(3)]
    return Example(f"max {' '.join(map(str, numbers))}", str(max(numbers)), "max")


def _people(number: int = 400) -> tuple[str, ...]:
    rng = random.Random("people")
    names = [a + b + c + d for a in "bdfgklmnprstvz" for b in "aeiou" for c in "bdgklmnrstv" for d in "aiou"]
    return tuple(sorted(rng.sample(names, number)))


PEOPLE = _people()


def fact(relation: str, person: str) -> str:
    """What `person` eats, where they live, or what they do for work: a fixed fact that a model has to memorize."""
    return random.Random(f"{relation} {person}").choice(FACTS[relation])


def recall(relation: str) -> Skill:
    """The skill of knowing one relation for every person."""

    def draw(rng: random.Random) -> Example:
        person = rng.choice(PEOPLE)
        return Example(f"{relation} {person}", fact(relation, person), relation)

    return draw


SKILLS: dict[str, Skill] = {
    **{name: transform(name) for name in TRANSFORMS},
    "add": add,
    "max": largest,
    **{relation: recall(relation) for relation in FACTS},
}
"""One skill per expert. The key is the first word of its questions."""

LONGER: dict[str, Skill] = {f"long {name}": transform(name, lengths=(6,)) for name in TRANSFORMS}
"""The transforms on longer strings. The base sees a few; no expert is trained on them."""


def held_out(example: Example) -> bool:
    """Whether the question is reserved for evaluation: about a tenth of them, chosen by a hash of the text.

    Facts are never held out: a model cannot recall a fact it has never seen.
    """
    return example.skill not in FACTS and zlib.crc32(example.question.encode()) % 10 == 0


def draw(skill: Skill, rng: random.Random, number: int, *, evaluation: bool) -> list[Example]:
    """`number` held-out examples (`evaluation`) or training examples; facts are in both. Repeats are possible."""
    found: list[Example] = []
    while len(found) < number:
        example = skill(rng)
        if example.skill in FACTS or held_out(example) == evaluation:
            found.append(example)
    return found
