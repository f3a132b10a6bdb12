from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.search.operators import (
    cross,
    distinct_top,
    elite_count,
    first_experts,
    improve,
    mix,
    pull,
    roulette,
    roulette_weights,
    select_by_roulette,
    select_by_tournament,
    top,
)
from evoswarm.search.rng import stream
from evoswarm.search.state import FAILED, Measured

UTILITIES = st.lists(
    st.one_of(st.just(FAILED), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -1.0, 1.0])),
    min_size=1,
    max_size=40,
).map(np.array)


def measured(rows, utilities, generations=None, particles=None) -> Measured:
    n = len(utilities)
    generations = [0] * n if generations is None else generations
    particles = range(n) if particles is None else particles
    return Measured(np.array(rows, float), np.array(utilities, float), np.array(generations), np.array(particles))


def one_pull(*, weights, has_best=True, v=(1.0, 0.0)):
    return pull(
        np.array([[1.0, 1.0]]),
        v=np.array([v]),
        p=np.array([[3.0, 1.0]]),
        g=np.array([1.0, 5.0]),
        w=np.array([0.0, 0.0]),
        has_best=np.array([has_best]),
        weights=np.array([weights], float),
    )[0].tolist()


def test_the_velocity_is_the_weighted_mean_of_its_four_terms():
    # v = (1, 0), p - x = (2, 0), g - x = (0, 4), x - w = (1, 1); weights 1 2 4 1, sum 8
    assert one_pull(weights=[1, 2, 4, 1]) == [(1 + 4 + 0 + 1) / 8, (0 + 0 + 16 + 1) / 8]


def test_without_a_personal_best_the_cognitive_term_is_in_neither_sum_nor_divisor():
    assert one_pull(weights=[1, 2, 4, 1], has_best=False) == pytest.approx([(1 + 0 + 1) / 6, (0 + 16 + 1) / 6])


def test_where_all_weights_are_zero_the_velocity_is_zero():
    assert one_pull(weights=[0, 0, 0, 0]) == [0.0, 0.0]
    assert one_pull(weights=[0, 9, 0, 0], has_best=False) == [0.0, 0.0]


def test_mix_and_cross_match_hand_computed_values():
    x1, x2 = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert mix(x1, x2, 1.5).tolist() == [1.5, -0.5]
    assert cross(x1, x2, 0.75, 0.25).tolist() == [0.75, 0.25]
    assert cross(x1, x2, 1.0, 0.0).tolist() == [0.5, 0.5]
    assert cross(x1, x2, 0.0, 0.0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("utilities", "weights"),
    [
        ([0.2, 0.8, 0.4], [0.25, 1.0, 0.5]),
        ([-1.0, 0.0, 1.0], [0.0, 0.5, 1.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([-3.0, -3.0], [1.0, 1.0]),
        ([0.5, FAILED, 0.25], [1.0, 0.0, 0.5]),
        ([FAILED, FAILED], [0.0, 0.0]),
        ([1e308, -1e308], [1.0, 0.0]),
    ],
)
def test_roulette_weights_match_hand_computed_values(utilities, weights):
    assert roulette_weights(np.array(utilities)).tolist() == weights


@given(UTILITIES)
def test_roulette_weights_are_finite_and_zero_exactly_for_failed_or_worst(utilities):
    weights, good = roulette_weights(utilities), utilities != FAILED
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights[~good] == 0).all()
    assert not good.any() or weights.max() == 1.0


@given(UTILITIES, st.integers(0, 2**32), st.data())
def test_roulette_draws_distinct_entries_that_did_not_fail(utilities, seed, data):
    good = utilities != FAILED
    count = data.draw(st.integers(0, int(good.sum())))
    drawn = roulette(stream(seed, "x"), roulette_weights(utilities), good, count)
    assert len(set(drawn.tolist())) == len(drawn) == count
    assert good[drawn].all()


def test_roulette_takes_entries_without_weight_only_after_all_others():
    weights, good = np.array([0.0, 1.0, 0.0, 0.5, 0.0]), np.array([True, True, True, True, False])
    for seed in range(50):
        drawn = set(roulette(stream(seed, "x"), weights, good, 3).tolist())
        assert {1, 3} < drawn <= {0, 1, 2, 3}


def test_roulette_follows_the_weights():
    drawn = [int(roulette(stream(seed, "x"), np.array([1.0, 3.0]), np.ones(2, bool), 1)[0]) for seed in range(2000)]
    assert abs(np.mean(drawn) - 0.75) < 0.05


@pytest.mark.parametrize(("rate", "size", "count"), [(0.1, 10, 1), (0.02, 10, 1), (0.07, 100, 7), (0, 9, 0), (1, 5, 5)])
def test_elite_count_is_the_ceiling_without_rounding_surprises(rate, size, count):
    assert elite_count(rate, size) == count


def test_top_is_ordered_by_utility_then_index_and_leaves_failed_out():
    assert top(np.array([0.5, FAILED, 0.9, 0.5]), 3).tolist() == [2, 0, 3]
    assert top(np.array([0.5, FAILED, 0.9, 0.5]), 9).tolist() == [2, 0, 3]
    assert top(np.array([FAILED]), 1).tolist() == []


def test_first_experts_are_all_in_pool_order_or_the_best_in_their_order():
    utilities = np.array([0.1, FAILED, 0.9, 0.5])
    assert first_experts(utilities, 3).tolist() == [0, 2, 3]
    assert first_experts(utilities, 2).tolist() == [2, 3]


@given(UTILITIES, st.integers(1, 20), st.integers(0, 25), st.integers(1, 5), st.integers(0, 2**32))
def test_selection_keeps_elites_drops_failed_and_fills_all_places_it_can(utilities, places, elites, size, seed):
    good = np.flatnonzero(utilities != FAILED)
    best = set(top(utilities, min(elites, places)).tolist())
    for kept in (
        select_by_tournament(stream(seed, "s"), utilities, places=places, elites=elites, size=size),
        select_by_roulette(stream(seed, "s"), utilities, places=places, elites=elites),
    ):
        assert len(set(kept.tolist())) == len(kept) == min(places, len(good))
        assert best <= set(kept.tolist()) <= set(good.tolist())


def test_a_tournament_of_all_is_a_ranking():
    utilities = np.array([0.1, 0.7, 0.3, 0.9, FAILED, 0.5])
    kept = select_by_tournament(stream(0, "s"), utilities, places=4, elites=0, size=99)
    assert kept.tolist() == [3, 1, 5, 2]


def test_a_tournament_of_one_is_a_plain_draw_without_replacement():
    rng, rest = stream(5, "s"), [0, 1, 2, 3]
    expected = [rest.pop(int(rng.choice(len(rest), 1, replace=False)[0])) for _ in range(3)]
    kept = select_by_tournament(stream(5, "s"), np.arange(4.0), places=3, elites=0, size=1)
    assert kept.tolist() == expected


def test_personal_bests_improve_only_on_strictly_more():
    bests = measured([[1], [2], [3]], [0.5, 0.5, FAILED])
    fresh = measured([[10], [20], [30]], [0.5, 0.6, FAILED], [4, 4, 4])
    assert improve(bests, np.array([0, 1, 2]), fresh).tolist() == [1]
    assert bests.rows.ravel().tolist() == [1, 20, 3]
    assert bests.generations.tolist() == [0, 4, 0]


def test_the_ranking_is_distinct_and_breaks_ties_by_generation_then_particle():
    rows = [[1, 0], [0, 1], [1, 0], [0.5, 0.5], [0.0, 2], [-0.0, 2], [9, 9]]
    entries = measured(rows, [0.9, 0.5, 0.7, 0.5, 0.5, 0.5, FAILED], [3, 2, 0, 1, 1, 1, 0], [0, 0, 0, 5, 4, 6, 0])
    ranked = distinct_top(entries, 10)
    assert ranked.rows.tolist() == [[1, 0], [0, 2], [0.5, 0.5], [0, 1]]
    assert distinct_top(entries, 2).rows.tolist() == [[1, 0], [0, 2]]
