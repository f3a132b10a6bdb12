"""The targets have disjoint splits in the Model Swarms format."""

from __future__ import annotations

from collections import Counter

import pytest

from evoswarm.toy.skills import FACTS, fact
from evoswarm.toy.targets import TARGETS, counts, make_target


def test_counts_add_up_to_the_total() -> None:
    assert counts({"a": 1, "b": 1, "c": 1}, 200) == {"a": 67, "b": 67, "c": 66}
    assert counts({"a": 4, "b": 2, "c": 3, "d": 1}, 200) == {"a": 80, "b": 40, "c": 60, "d": 20}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_200_validation_and_1000_test_questions_without_overlap(name: str) -> None:
    target = make_target(name, seed=0)
    assert set(target) == {"dataset", "dev", "test"}
    assert (target["dataset"], len(target["dev"]), len(target["test"])) == (name, 200, 1000)
    records = target["dev"] + target["test"]
    assert len({record["question"] for record in records}) == 1200
    assert sorted(record["id"] for record in records) == list(range(1200))


@pytest.mark.parametrize("name", TARGETS)
def test_both_splits_have_the_same_shares_of_skills(name: str) -> None:
    target = make_target(name, seed=0)
    for split in ("dev", "test"):
        found = Counter(record["domain"] for record in target[split])
        wanted = counts(TARGETS[name].shares, len(target[split]))
        assert set(found) == set(wanted)
        assert all(abs(found[domain] - wanted[domain]) <= 1 for domain in wanted)


def test_a_multiple_choice_answer_is_the_letter_of_the_fact_among_four_options() -> None:
    for record in make_target("people", seed=0)["dev"]:
        relation, person = record["question"].split()
        assert list(record["choices"]) == ["A", "B", "C", "D"]
        assert len(set(record["choices"].values())) == 4
        assert set(record["choices"].values()) <= set(FACTS[relation])
        assert record["choices"][record["answer"]] == fact(relation, person)


def test_the_seed_determines_the_target() -> None:
    assert make_target("trio", seed=0) == make_target("trio", seed=0)
    assert make_target("trio", seed=0)["dev"] != make_target("trio", seed=1)["dev"]
