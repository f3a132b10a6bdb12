"""The analyses, on cases small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evoswarm.report.analysis import (
    Emergence,
    coefficients,
    emergence,
    evenly,
    flips,
    graded,
    principal_plane,
    rank,
    sign_test,
    solved,
)


def scores(*values: float | None) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float32)


def test_an_example_is_solved_from_a_score_of_one_and_never_without_a_score():
    assert solved(scores(1, 0.99, None, 2, 0)).tolist() == [True, False, False, True, False]


def test_emergence_counts_only_what_no_initial_expert_solved():
    experts = [scores(1, 0, 0, 0), scores(0, 1, 0, 0)]
    generations = [[scores(1, 1, 0, 0)], [scores(0, 0, 1, 0), scores(1, 1, 0, 1)], [scores(1, 1, 1, 0)]]
    found = emergence(experts, generations, [scores(1, 1, 0, 0), scores(1, 1, 0, 1), None])
    assert found == Emergence(total=4, unsolved=2, best=(0, 1, None), present=(0, 2, 1), ever=(0, 2, 2))


def test_emergence_passes_over_evaluations_without_scores():
    found = emergence([scores(0, 1), scores()], [[scores(), scores(1, 1)], []], [scores(), scores(1, 1)])
    assert found == Emergence(total=2, unsolved=1, best=(None, 1), present=(1, 0), ever=(1, 1))


def test_emergence_does_not_apply_where_no_score_reaches_one():
    assert emergence([scores(0.2, 0.9)], [[scores(0.5, 0.99)]], [None]) is None
    assert emergence([], [], []) is None


def test_only_scores_that_are_neither_right_nor_wrong_are_graded():
    assert not graded([scores(0, 1, None)])
    assert graded([scores(0, 1), scores(0.5, 1)])


def test_negative_flips_are_right_before_and_wrong_after():
    found = flips(scores(1, 1, 0, 0, 1, None), scores(1, 0, 1, 0, None, 1))
    assert (found.lost, found.gained, found.both, found.neither) == ((1, 4), (2, 5), 1, 1)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1))
def test_flips_explain_the_whole_difference_of_two_accuracies(pairs):
    before, after = np.array(pairs).T
    found = flips(before, after)
    assert found.total == len(pairs)
    assert len(found.gained) - len(found.lost) == after.sum() - before.sum()


def test_the_sign_test_is_the_exact_binomial_one():
    assert sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(1, 3) == pytest.approx(2 * (1 + 4) / 16)
    assert sign_test(4, 4) == 1.0
    assert sign_test(3, 1) == sign_test(1, 3)


def test_a_rank_counts_what_is_better_and_what_is_equal():
    utilities = [0.5, 0.9, None, 0.5, 0.1]
    assert (rank(utilities, 1).place, rank(utilities, 0).place, rank(utilities, 2).place) == (1, 2, 5)
    assert rank(utilities, 3).shared == 1


def test_the_principal_plane_finds_the_direction_of_a_line():
    rows = np.outer([-1.0, 0.0, 1.0, 2.0], [3.0, 4.0, 0.0]) + [1.0, 1.0, 1.0]
    plane = principal_plane(rows)
    assert plane.axes[0] == pytest.approx([0.6, 0.8, 0.0])
    assert plane.share == pytest.approx([1.0, 0.0])
    assert plane.project(rows)[:, 0] == pytest.approx([-7.5, -2.5, 2.5, 7.5])


@given(arrays(np.float64, (6, 3), elements=st.floats(-2, 2)))
def test_distances_never_grow_by_projection(rows):
    plane = principal_plane(rows)
    points = plane.project(rows)
    for i in range(1, len(rows)):
        assert np.linalg.norm(points[i] - points[0]) <= np.linalg.norm(rows[i] - rows[0]) + 1e-9


def test_equal_rows_have_a_plane_without_variance():
    plane = principal_plane(np.full((3, 2), 0.5))
    assert plane.share.tolist() == [0.0, 0.0]
    assert np.isfinite(plane.project(np.eye(2))).all()


def test_rows_by_name_become_columns_in_pool_order():
    assert coefficients([{"b": 2.0}, {"a": 1.0, "b": -1.0}], ["a", "b"]).tolist() == [[0, 2], [1, -1]]


def test_a_sample_is_even_and_keeps_what_must_be_kept():
    assert evenly(4, 10) == [0, 1, 2, 3]
    assert evenly(1000, 4, keep=999) == [0, 250, 500, 750, 999]
    assert evenly(3, 2, keep=7) == [0, 1]
