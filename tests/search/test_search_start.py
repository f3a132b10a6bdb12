"""Where a search starts: the experts, their greedy soup, or a recipe."""

from __future__ import annotations

import numpy as np
import pytest
from search_helpers import CONFIGS, SOUPS, bowl, run, run_generation, same_asks, saved, search_of

from evoswarm.errors import UserError
from evoswarm.search.soup import GreedySoup

RECIPE = {"e0": 0.7, "e2": 0.3}
every = pytest.mark.parametrize("kind", sorted(CONFIGS))


@every
def test_a_recipe_is_measured_in_generation_0_and_belongs_to_the_population(kind):
    search = search_of(kind, start=RECIPE)
    _, rest = run_generation(search, bowl)
    assert [0.7, 0, 0.3, 0] in rest.rows[:, :4].tolist()
    assert [0.7, 0, 0.3, 0] in [member.row[:4].tolist() for member in search.population]


@pytest.mark.parametrize("kind", sorted(CONFIGS.keys() - {"m2n2"}))  # all measured rows are its population
def test_a_start_does_not_change_the_size_of_a_population(kind):
    sizes = []
    for start in ("experts", "greedy_soup", RECIPE):
        search = search_of(kind, start=start, population=6)
        run_generation(search, bowl)
        sizes.append(len(search.population))
    more = 1 if kind in ("random_search", "cma_es", "evolmerge", "lorahub", "bayes", "evogm") else 0
    assert sizes == [sizes[0], sizes[0] + more, sizes[0] + more]


@every
def test_the_greedy_soup_is_the_one_that_the_search_of_that_name_finds(kind):
    soup = search_of("greedy_soup")
    run(soup, bowl)
    search = search_of(kind, start="greedy_soup")
    asks = run_generation(search, bowl)
    assert [ask.phase for ask in asks] == ["experts", "start", "start", "start", "population"]
    assert search.state.start[0, :4].tolist() == soup.global_best.row.tolist()


@every
@pytest.mark.parametrize("start", ["greedy_soup", RECIPE])
def test_a_restored_search_remembers_its_start(kind, start):
    whole, parts = (search_of(kind, start=start, max_generations=3) for _ in range(2))
    asks = run(whole, bowl)
    run_generation(parts, bowl)
    again = search_of(kind, start=start, max_generations=3)
    again.restore(*saved(parts))
    assert same_asks([ask for ask in asks if ask.generation > 0], run(again, bowl))


def test_samples_are_drawn_around_the_start():
    plain, moved = search_of("random_search"), search_of("random_search", start=RECIPE)
    for search in (plain, moved):
        run_generation(search, bowl)
    shift = moved.ask().rows - plain.ask().rows
    np.testing.assert_allclose(shift, np.tile([0.45, -0.25, 0.05, -0.25], (len(shift), 1)), atol=1e-12)
    around = search_of("cma_es", start=RECIPE, sigma=1e-6)
    run_generation(around, bowl)
    np.testing.assert_allclose(around.ask().rows, np.tile([0.7, 0, 0.3, 0], (10, 1)), atol=1e-4)


def test_layers_start_at_the_recipe_of_their_experts():
    search = search_of("evolmerge", layers=3, start=RECIPE)
    run_generation(search, bowl_of_layers)
    assert search.state.start[0].tolist() == [0.7] * 3 + [0] * 3 + [0.3] * 3 + [0] * 3


def bowl_of_layers(ask):
    return [0.5] * len(ask.rows)


@pytest.mark.parametrize("kind", SOUPS)
def test_soups_have_no_other_start(kind):
    search = search_of(kind, start=RECIPE)
    run(search, bowl)
    plain = search_of(kind)
    run(plain, bowl)
    assert search.global_best.row.tolist() == plain.global_best.row.tolist()


def test_a_recipe_with_an_unknown_expert_or_no_number_is_refused():
    with pytest.raises(UserError, match="search.start: unknown expert 'zz'; known experts: e0"):
        search_of("random_search", start={"zz": 1.0})
    with pytest.raises(ValueError, match="finite"):
        GreedySoup(start={"e0": float("nan")})
