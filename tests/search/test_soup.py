from __future__ import annotations

import numpy as np
import pytest
from search_helpers import bowl, run, run_generation, saved, search_of


def told(*values):
    """Utilities by order of the rows that are asked for."""
    left = list(values)
    return lambda ask: [left.pop(0) for _ in ask.rows]


def test_a_greedy_soup_adds_experts_from_the_best_one_on_and_keeps_those_that_do_not_make_it_worse():
    search = search_of("greedy_soup")
    asks = run(search, told(0.3, 0.5, 0.4, 0.1, 0.6, 0.55, 0.6))
    rows = [ask.rows[0].tolist() for ask in asks[2:]]
    np.testing.assert_allclose(rows, [[0, 0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(search.global_best.row, [0, 1 / 3, 1 / 3, 1 / 3])
    assert (search.stop_reason, search.state.evaluations) == ("finished", 7)


def test_failed_experts_and_failed_means_are_left_out():
    search = search_of("greedy_soup")
    run(search, told(0.3, None, 0.4, 0.1, None, 0.5))
    np.testing.assert_allclose(search.global_best.row, [0, 0, 0.5, 0.5])


def test_if_every_mean_is_worse_the_soup_is_the_best_expert():
    search = search_of("greedy_soup")
    run(search, told(0.3, 0.5, 0.4, 0.1, 0.2, 0.2, 0.2))
    assert search.global_best.row.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("utility", [0.1, 0.9])
def test_the_uniform_soup_wins_whatever_it_is_worth(utility):
    search = search_of("uniform_soup")
    run(search, told(0.3, 0.5, None, 0.1, utility))
    np.testing.assert_allclose(search.global_best.row, [1 / 3, 1 / 3, 0, 1 / 3])
    assert search.global_best.utility == utility and search.stop_reason == "finished"


def test_a_restored_greedy_soup_ends_the_same_way():
    whole, parts = search_of("greedy_soup"), search_of("greedy_soup")
    run(whole, bowl)
    for _ in range(2):
        run_generation(parts, bowl)
    again = search_of("greedy_soup")
    again.restore(*saved(parts))
    run(again, bowl)
    assert saved(again)[1] == saved(whole)[1]
    assert again.global_best.row.tolist() == whole.global_best.row.tolist()
