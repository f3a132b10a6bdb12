"""The target tasks: mixtures of skills that no single expert covers, in the Model Swarms JSON format."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evoswarm.toy.skills import FACTS, SKILLS, Example, draw

VALIDATION, TEST = 200, 1000
LETTERED = "ABCD"


@dataclass(frozen=True)
class Target:
    """The share of each skill, and whether questions have four options."""

    shares: Mapping[str, float]
    multiple_choice: bool = False


TARGETS: dict[str, Target] = {
    "trio": Target({"rev": 1, "add": 1, "max": 1}),
    "letters": Target({"rev": 1, "sort": 1, "next": 1, "rot": 1}),
    "people": Target({"eats": 1, "home": 1, "work": 1}, multiple_choice=True),
    "office": Target({"sort": 4, "work": 3, "next": 2, "add": 1}),
}


def counts(shares: Mapping[str, float], number: int) -> dict[str, int]:
    """`number` split by the shares; the remainder from rounding goes to the first ones."""
    total = sum(shares.values())
    whole = {name: int(number * share / total) for name, share in shares.items()}
    for name in list(whole)[: number - sum(whole.values())]:
        whole[name] += 1
    return whole


def distinct(name: str, number: int, rng: random.Random) -> list[Example]:
    """`number` distinct held-out questions of one skill."""
    found: dict[str, Example] = {}
    while len(found) < number:
        example = draw(SKILLS[name], rng, 1, evaluation=True)[0]
        found.setdefault(example.question, example)
    return list(found.values())


def record(example: Example, number: int, rng: random.Random, *, multiple_choice: bool) -> dict[str, Any]:
    """One record. The answer is text, or the letter of one of four options from the same relation."""
    shared = {"question": example.question, "id": number, "domain": example.skill}
    if not multiple_choice:
        return shared | {"answer": example.answer}
    others = [text for text in FACTS[example.skill] if text != example.answer]
    options = rng.sample([example.answer, *rng.sample(others, len(LETTERED) - 1)], len(LETTERED))
    choices = dict(zip(LETTERED, options, strict=True))
    return shared | {"choices": choices, "answer": LETTERED[options.index(example.answer)]}


def make_target(name: str, *, seed: int, targets: Mapping[str, Target] = TARGETS) -> dict[str, Any]:
    """One of `targets` as JSON data: `dev` (validation) and `test`, with no question in common."""
    target, rng = targets[name], random.Random(f"target {name} {seed}")
    splits: dict[str, list[Example]] = {"dev": [], "test": []}
    validation = counts(target.shares, VALIDATION)
    for skill, number in counts(target.shares, VALIDATION + TEST).items():
        examples = distinct(skill, number, rng)
        splits["dev"] += examples[: validation[skill]]
        splits["test"] += examples[validation[skill] :]
    records: dict[str, list[dict[str, Any]]] = {}
    for split, examples in splits.items():
        rng.shuffle(examples)
        start = sum(map(len, records.values()))
        records[split] = [
            record(example, start + position, rng, multiple_choice=target.multiple_choice)
            for position, example in enumerate(examples)
        ]
    return {"dataset": name, **records}
