from __future__ import annotations

import sys

import numpy as np
import pytest
from search_helpers import bowl, run, run_generation, same_asks, saved, search_of

from evoswarm.errors import UserError


def test_samples_start_around_the_base_model_and_none_leaves_the_bounds():
    search = search_of("lorahub", population=10, max_generations=4, bound=0.5)
    asks = run(search, bowl)
    rows = np.concatenate([ask.rows for ask in asks if ask.phase == "sample"])
    assert abs(rows[0]).max() < 0.1
    assert abs(rows).max() <= 0.5 and abs(rows).max() > 0.2
    assert rows.sum(axis=1).std() > 0.05


def test_the_penalty_is_told_and_the_ranking_goes_by_utility_alone():
    search = search_of("lorahub", population=5, l1=0.5)
    run_generation(search, bowl)
    (ask,) = run_generation(search, bowl)
    expected = [-u + 0.5 * abs(row).mean() for u, row in zip(bowl(ask), ask.rows, strict=True)]
    np.testing.assert_allclose(search.state.losses, expected)
    assert search.global_best.utility == max(*bowl(ask), *search.expert_utilities)


def test_a_large_penalty_keeps_coefficients_small():
    sizes = {}
    for l1 in (0.0, 10.0):
        search = search_of("lorahub", population=10, max_generations=8, l1=l1)
        sizes[l1] = abs(run(search, bowl)[-1].rows).mean()
    assert sizes[10.0] < 0.5 * sizes[0.0]


def test_a_failed_sample_is_told_the_largest_loss_so_far():
    search = search_of("lorahub", population=4, l1=0.0)
    run_generation(search, bowl)
    run_generation(search, lambda ask: [0.5, None, -0.25, 0.1])
    assert search.state.losses.tolist() == [-0.5, 0.25, 0.25, -0.1]


def test_a_failed_expert_has_no_part_in_any_sample():
    search = search_of("lorahub", max_generations=3)
    asks = run(search, lambda ask: [0.1, None, 0.2, 0.3] if ask.phase == "experts" else bowl(ask))
    samples = np.concatenate([ask.rows for ask in asks if ask.phase == "sample"])
    assert not samples[:, 1].any() and samples[1:, [0, 2, 3]].all()


def test_a_run_that_is_extended_keeps_the_plan_it_began_with():
    short, longer = (search_of("lorahub", population=5, max_generations=n) for n in (3, 6))
    first = run(short, bowl)
    longer.restore(*saved(short))
    again = search_of("lorahub", population=5, max_generations=6)
    asks = run(longer, bowl)
    assert len(asks) == 3 and longer.state.budget == 15
    assert same_asks(run(again, bowl)[:2], first[:2])  # the experts and the empty rest of the population


def test_without_nevergrad_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    search = search_of("lorahub")
    run_generation(search, bowl)
    with pytest.raises(UserError, match=r"pip install '.\[compare\]'"):
        search.ask()
