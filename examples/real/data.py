"""Six skills, one data set each, and a target that needs two skills at a time and that no data set contains."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORDS: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text())

Example = tuple[str, str]
"""The task with its input, and the answer."""


def main(folder: Path) -> None:
    """Write one JSONL file per skill, and the target as target.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, skill in SKILLS.items():
        records = [{"prompt": prompt(task), "completion": f" {answer}"} for task, answer in draw(skill, 480, seed=name)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    examples = list(distinct(TARGET, 300, seed="target"))
    records = [{"question": prompt(task), "answer": answer} for task, answer in examples]
    (folder / "target.json").write_text(json.dumps({"dev": records[:100], "test": records[100:]}))


def prompt(task: str) -> str:
    """The text that a model continues."""
    return f"{task} ="


def draw(skill: Callable[[random.Random], Example], count: int, *, seed: str) -> Iterator[Example]:
    """Examples of a skill; they may repeat."""
    rng = random.Random(seed)
    return (skill(rng) for _ in range(count))


def distinct(skills: list[Callable[[random.Random], Example]], count: int, *, seed: str) -> Iterator[Example]:
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
        return WORDS["ones"][number]
    tens = WORDS["tens"][number // 10 - 2]
    return tens if number % 10 == 0 else f"{tens}-{WORDS["ones"][number % 10]}"


def plural_of(noun: str) -> str:
    """The regular plural."""
    if noun == "leaf":
        return "leaves"
    if noun.endswith(("s", "x", "ch", "sh")) or noun == "potato":
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return "fish" if noun == "fish" else f"{noun}s"


def add(rng: random.Random) -> Example:
    """Addition below 100."""
    a, b = rng.randrange(50), rng.randrange(50)
    return f"Add: {a} and {b}", str(a + b)


def digits(rng: random.Random) -> Example:
    """A number in words."""
    number = rng.randrange(100)
    return f"Digits: {words(number)}", str(number)


def following(rng: random.Random) -> Example:
    """The next day or month."""
    names = rng.choice([WORDS["days"], WORDS["months"]])
    i = rng.randrange(len(names))
    return f"Next: {names[i]}", names[(i + 1) % len(names)]


def upper(rng: random.Random) -> Example:
    """A word in capital letters."""
    noun = rng.choice([*WORDS["nouns"], *WORDS["days"], *WORDS["months"], *(word for pair in WORDS["opposites"] for word in pair)])
    return f"Uppercase: {noun}", noun.upper()


def plural(rng: random.Random) -> Example:
    """The plural of a noun."""
    noun = rng.choice(WORDS["nouns"])
    return f"Plural: {noun}", plural_of(noun)


def opposite(rng: random.Random) -> Example:
    """The opposite of a word."""
    word, other = rng.sample(rng.choice(WORDS["opposites"]), 2)
    return f"Opposite: {word}", other


def add_words(rng: random.Random) -> Example:
    """`digits`, then `add`."""
    a, b = rng.randrange(50), rng.randrange(50)
    return f"Add: {words(a)} and {words(b)}", str(a + b)


def upper_plural(rng: random.Random) -> Example:
    """`plural`, then `upper`."""
    noun = rng.choice(WORDS["nouns"])
    return f"Uppercase plural: {noun}", plural_of(noun).upper()


def upper_opposite(rng: random.Random) -> Example:
    """`opposite`, then `upper`."""
    word, other = rng.sample(rng.choice(WORDS["opposites"]), 2)
    return f"Uppercase opposite: {word}", other.upper()


SKILLS = {
    "add": add,
    "digits": digits,
    "following": following,
    "opposite": opposite,
    "plural": plural,
    "upper": upper,
}
TARGET = [add_words, upper_plural, add_words, upper_opposite]
