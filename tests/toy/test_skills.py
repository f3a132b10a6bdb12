"""The skills on hand-made cases."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.toy import skills
from evoswarm.toy.skills import FACTS, LETTERS, LONGER, PEOPLE, SKILLS, TRANSFORMS, draw, held_out

words = st.text(alphabet=LETTERS, min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("rev", "dbac", "cabd"),
        ("sort", "dbaca", "aabcd"),
        ("next", "aijb", "bjac"),
        ("rot", "dbac", "bacd"),
        ("swap", "dbac", "cbad"),
    ],
)
def test_a_transform_does_what_its_docstring_says(name: str, text: str, expected: str) -> None:
    assert TRANSFORMS[name](text) == expected


@given(words)
def test_reversing_twice_and_full_rotations_restore_the_text(text: str) -> None:
    assert skills.rev(skills.rev(text)) == text
    turned = shifted = text
    for _ in text:
        turned = skills.rotate(turned)
    for _ in LETTERS:
        shifted = skills.shift(shifted)
    assert turned == shifted == text


@pytest.mark.parametrize("seed", range(20))
def test_number_skills_answer_their_own_question(seed: int) -> None:
    rng = random.Random(seed)
    _, a, b = (example := SKILLS["add"](rng)).question.split()
    assert example.answer == str(int(a) + int(b))
    _, *numbers = (example := SKILLS["max"](rng)).question.split()
    assert example.answer == max(numbers)


def test_the_longer_transforms_use_more_letters_than_the_experts_training_data() -> None:
    for name in TRANSFORMS:
        trained = {len(SKILLS[name](random.Random(seed)).question.split()[1]) for seed in range(50)}
        example = LONGER[f"long {name}"](random.Random(0))
        keyword, text = example.question.split()
        assert (keyword, example.answer) == (name, TRANSFORMS[name](text))
        assert len(text) > max(trained)


def test_facts_are_fixed_and_each_relation_uses_all_its_answers() -> None:
    assert len(set(PEOPLE)) == 400
    for relation, answers in FACTS.items():
        assert {skills.fact(relation, person) for person in PEOPLE} == set(answers)
        assert {len(answer) for answer in answers} == {4}


@pytest.mark.parametrize("name", [*SKILLS, *LONGER])
def test_the_seed_determines_the_questions(name: str) -> None:
    skill = (SKILLS | LONGER)[name]
    drawn = [draw(skill, random.Random(seed), 20, evaluation=True) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", sorted(set(SKILLS) - set(FACTS)))
def test_training_never_sees_a_held_out_question(name: str) -> None:
    rng = random.Random(0)
    assert not any(held_out(example) for example in draw(SKILLS[name], rng, 200, evaluation=False))
    assert all(held_out(example) for example in draw(SKILLS[name], rng, 20, evaluation=True))


@pytest.mark.parametrize("name", [*SKILLS, *LONGER])
def test_questions_and_answers_stay_short(name: str) -> None:
    for example in draw((SKILLS | LONGER)[name], random.Random(0), 200, evaluation=True):
        assert len(example.question) <= 14
        assert 1 <= len(example.answer) <= 6
