from __future__ import annotations

import numpy as np
import pytest
from search_helpers import bowl, flaky, run, run_generation, search_of

from evoswarm.search.rng import stream


def test_generation_0_is_the_experts_alone():
    search = search_of("random_search")
    experts, rest = run_generation(search, bowl)
    assert rest.rows.shape == (0, 4)
    assert [m.row.tolist() for m in search.population] == experts.rows.tolist()


@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_samples_are_stretched_dirichlet_rows_over_the_successful_experts(spread):
    search = search_of("random_search", population=3, concentration=0.5, spread=spread, seed=4)
    run_generation(search, lambda ask: [0.1, None, 0.2, 0.3][: len(ask.rows)])
    for i, row in enumerate(search.ask().rows):
        d = stream(4, "sample", 1, i).dirichlet([0.5] * 3)
        np.testing.assert_allclose(row[[0, 2, 3]], 1 / 3 + spread * (d - 1 / 3))
        assert row[1] == 0


def test_within_the_simplex_no_coefficient_is_negative_and_outside_some_are():
    inside = np.concatenate([a.rows for a in run(search_of("random_search", max_generations=9), bowl)])
    outside = np.concatenate([a.rows for a in run(search_of("random_search", max_generations=9, spread=2.0), bowl)])
    assert inside.min() >= -1e-12 and outside.min() < -0.1


@pytest.mark.parametrize("concentration", [1e-300, 1e-3, 1e6])
def test_extreme_concentrations_give_rows_that_sum_to_one(concentration):
    search = search_of("random_search", concentration=concentration, max_generations=2)
    for ask in run(search, bowl):
        np.testing.assert_allclose(ask.rows.sum(axis=1), 1.0)


def test_nothing_is_learned():
    rows = [run(search_of("random_search", max_generations=4), utility)[-1].rows for utility in (bowl, flaky)]
    assert rows[0].tolist() == rows[1].tolist()


def test_the_ranking_is_the_best_of_everything_measured():
    search = search_of("random_search", population=5, ensemble_size=7, max_generations=9)
    asks = run(search, flaky)
    told = sorted((u for ask in asks for u in flaky(ask) if u is not None), reverse=True)
    assert [best.utility for best in search.ranking(99)] == told[:7]
