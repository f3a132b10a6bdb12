"""Six skills, one data set each, and a target that needs four of them, in words that are in no data set."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_WORDS: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
NOUNS, OPPOSITES, DAYS, MONTHS = (_WORDS[name] for name in ("nouns", "opposites", "days", "months"))
ONES, TENS = _WORDS["ones"], _WORDS["tens"]

Example = tuple[str, str]
"""A task with its input, and the answer."""
Skill = Callable[[random.Random], Example]


def main(folder: Path, *, validation: int, test: int) -> None:
    """Write the training data and the questions of each skill, and the target.

    Args:
        folder: gets SKILL.jsonl and SKILL.json for each skill, and target.json.
        validation: examples of the target's validation split.
        test: of its test split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, skill in SKILLS.items():
        records = [{"prompt": prompt(task), "completion": f" {answer}"} for task, answer in draw(skill, 480, seed=name)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        _write(folder / f"{name}.json", list(distinct([skill], 16, seed=f"{name} questions")), validation=16)
    _write(folder / "target.json", list(distinct(TARGET, validation + test, seed="target")), validation=validation)


def _write(path: Path, examples: list[Example], *, validation: int) -> None:
    records = [{"question": prompt(task), "answer": answer} for task, answer in examples]
    path.write_text(json.dumps({"dev": records[:validation], "test": records[validation:]}))


def prompt(task: str) -> str:
    """The text that a model continues."""
    return f"{task} ="


def draw(skill: Skill, count: int, *, seed: str) -> Iterator[Example]:
    """Examples of a skill; they may repeat."""
    rng = random.Random(seed)
    return (skill(rng) for _ in range(count))


def distinct(skills: list[Skill], count: int, *, seed: str) -> Iterator[Example]:
    """Different examples of several skills in turn."""
    rng, seen = random.Random(seed), set[str]()
    while len(seen) < count:
        task, answer = skills[len(seen) % len(skills)](rng)
        if task not in seen:
            seen.add(task)
            yield task, answer


def words(number: int) -> str:
    """A number from 0 to 99 in words."""
    if number < 20:
        return str(ONES[number])
    tens, ones = divmod(number, 10)
    return str(TENS[tens - 2]) if ones == 0 else f"{TENS[tens - 2]}-{ONES[ones]}"


def plural_of(noun: str) -> str:
    """The plural of one of `NOUNS`."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"


IRREGULAR = {"leaf": "leaves", "potato": "potatoes"}


def add(rng: random.Random) -> Example:
    """Addition of two numbers below 20."""
    a, b = rng.randrange(20), rng.randrange(20)
    return f"{a} + {b}", str(a + b)


def digits(rng: random.Random) -> Example:
    """A number in words."""
    number = rng.randrange(100)
    return f"Digits: {words(number)}", str(number)


def following(rng: random.Random) -> Example:
    """The next day or month."""
    names = rng.choice([DAYS, MONTHS])
    i = rng.randrange(len(names))
    return f"Next: {names[i]}", names[(i + 1) % len(names)]


def upper(rng: random.Random) -> Example:
    """A word in capital letters."""
    word = rng.choice([*NOUNS, *DAYS, *MONTHS, *(word for pair in OPPOSITES for word in pair)])
    return f"Uppercase: {word}", word.upper()


def plural(rng: random.Random) -> Example:
    """The plural of a noun."""
    noun = rng.choice(NOUNS)
    return f"Plural: {noun}", plural_of(noun)


def opposite(rng: random.Random) -> Example:
    """The opposite of a word."""
    word, other = rng.sample(rng.choice(OPPOSITES), 2)
    return f"Opposite: {word}", other


def add_words(rng: random.Random) -> Example:
    """`add` with numbers in words, which needs `digits` too."""
    a, b = rng.randrange(20), rng.randrange(20)
    return f"{words(a)} + {words(b)}", str(a + b)


def reworded(skill: Skill, template: str) -> Skill:
    """The skill with its task in other words."""

    def other(rng: random.Random) -> Example:
        task, answer = skill(rng)
        return template.format(task.partition(": ")[2]), answer

    return other


SKILLS: dict[str, Skill] = {
    "upper": upper,
    "plural": plural,
    "opposite": opposite,
    "digits": digits,
    "following": following,
    "add": add,
}
TARGET: list[Skill] = [
    reworded(plural, "Two of {}"),
    reworded(opposite, "Not {} but"),
    reworded(digits, "{} in digits"),
    add_words,
]
"""The target's tasks, in turn."""
