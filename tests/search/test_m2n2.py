"""M2N2: who competes for what, who mates with whom, and what a child is made of."""

from __future__ import annotations

import numpy as np
import pytest
from search_helpers import search_of

from evoswarm.search import Outcomes
from evoswarm.search.m2n2 import M2N2Search, shared


def told(search: M2N2Search, scores: dict[int, list[float]]) -> None:
    """Answer the open ask: the scores of a row by its largest coefficient's expert; NaN for a failure."""
    ask = search.ask()
    found = np.array([scores[int(row.argmax()) // (len(row) // len(search.experts))] for row in ask.rows])
    examples = found.shape[1]
    utilities = [None if np.isnan(line).any() else float(line.mean()) for line in found]
    search.tell(utilities, Outcomes(found, np.full_like(found, np.nan), np.full(examples, 1 / examples)))


def started(scores: dict[int, list[float]], **settings) -> M2N2Search:
    search = search_of("m2n2", experts=len(scores), **settings)
    told(search, scores)
    if not search.finished_generation:
        search.tell([])
    return search


def test_members_share_the_value_of_an_example_that_several_get_right():
    scores, weights = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), np.array([0.5, 0.25, 0.25])
    assert shared(scores, weights, 1.0).tolist() == [[0.25, 0.25, 0], [0.25, 0, 0]]
    assert shared(scores, weights, 0.0).tolist() == [[0.5, 0.25, 0], [0.5, 0, 0]]
    assert shared(scores - 1, weights, 1.0).tolist() == shared(scores, weights, 1.0).tolist()


def test_the_second_parent_is_right_where_the_first_is_wrong():
    same, other = [1.0, 1, 1, 0, 0], [0.0, 0, 0, 1, 1]
    search = started({0: same, 1: same, 2: other}, offspring=40)
    parents = [frozenset(np.flatnonzero(row)) for row in search.ask().rows]
    assert set(parents) == {frozenset({0, 2}), frozenset({1, 2})}


def test_members_that_are_right_on_the_same_examples_mate_at_random():
    search = started({i: [1.0, 0.0] for i in range(3)}, offspring=40)
    assert {len(np.flatnonzero(row)) for row in search.ask().rows} == {2}


def test_a_child_swaps_the_shares_of_its_parents_at_a_span():
    search = started({0: [1.0, 0], 1: [0.0, 1]}, offspring=60, layers=3)
    splits = set()
    for first, second in search.ask().rows.reshape(60, 2, 3):
        np.testing.assert_allclose(first + second, 1)
        w = first[2]
        splits.add(sum(abs(first[:2] - w) > 1e-12))
        assert all(min(abs(c - w), abs(c - (1 - w))) < 1e-12 for c in first)
    assert splits == {0, 1, 2}


def test_one_span_is_a_plain_mix_of_two_members():
    search = started({0: [1.0, 0], 1: [0.0, 1]}, layer_spans=1, layers=3)
    assert search.ask().rows.shape == (10, 2)


@pytest.mark.parametrize(("competition", "kept"), [(1.0, {1, 2}), (0.0, {0, 1})])
def test_with_competition_a_specialist_stays_and_one_of_two_equals_leaves(competition, kept):
    scores = {0: [1.0, 1, 1, 0, 0], 1: [1.0, 1, 1, 0, 0], 2: [0.0, 0, 0, 1, 1]}
    search = started(scores, population=2, competition=competition)
    assert {int(member.row.argmax()) for member in search.population} == kept


def test_failed_rows_do_not_enter():
    search = started({0: [1.0, 0], 1: [0.0, 1], 2: [np.nan, np.nan]})
    assert len(search.population) == 2
    ask = search.ask()
    assert not ask.rows[:, 2].any()
    search.tell([None] * len(ask.rows), Outcomes(*np.full((2, len(ask.rows), 2), np.nan), np.full(2, 0.5)))
    assert len(search.population) == 2
