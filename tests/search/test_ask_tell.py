"""What holds for every algorithm."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import CONFIGS, SAMPLING, bowl, flaky, run, run_generation, same_asks, search_of

from evoswarm.errors import UserError
from evoswarm.search import SEARCHES

every = pytest.mark.parametrize("kind", sorted(CONFIGS))


def test_importing_the_searches_pulls_in_no_engine():
    code = (
        "import sys, evoswarm.search; "
        "print([m for m in ('torch', 'ray', 'transformers', 'vllm', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_algorithm_of_the_configuration_exists_under_its_name():
    assert {name: cls.config_class.model_fields["type"].default for name, cls in SEARCHES.items()} == {
        name: name for name in SEARCHES
    }


@every
def test_generation_0_measures_the_experts_then_the_rest_of_the_population(kind):
    search = search_of(kind, population=6)
    experts, rest = run_generation(search, bowl)
    assert (experts.phase, experts.particles) == ("experts", (0, 1, 2, 3))
    assert experts.rows.tolist() == np.eye(4, len(search.basis)).tolist()
    assert rest.phase == "population"
    assert rest.particles == tuple(range(len(search.population) - len(rest.rows), len(search.population)))
    assert search.expert_utilities == bowl(experts)
    assert search.generation == 0


@every
def test_ask_is_the_same_until_tell(kind):
    search = search_of(kind)
    for _ in range(6):
        ask = search.ask()
        assert search.ask() is ask
        assert not search.finished_generation
        search.tell(bowl(ask))


@every
def test_changing_the_rows_of_an_ask_after_its_tell_changes_nothing(kind):
    clean, dirty = search_of(kind, max_generations=4), search_of(kind, max_generations=4)
    run(clean, bowl)
    while dirty.stop_reason is None:
        ask = dirty.ask()
        dirty.tell(bowl(ask))
        ask.rows[:] = np.nan
    assert [b.row.tolist() for b in dirty.ranking(5)] == [b.row.tolist() for b in clean.ranking(5)]


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_utility_that_is_not_a_number_is_refused_and_can_be_told_again(kind, bad):
    search = search_of(kind)
    ask = search.ask()
    with pytest.raises(ValueError, match="NaN or infinite"):
        search.tell([bad, 0.0, 0.0, 0.0])
    assert search.ask() is ask
    search.tell([0.0] * 4)


@every
def test_a_wrong_number_of_utilities_or_a_tell_without_ask_is_refused(kind):
    search = search_of(kind)
    with pytest.raises(ValueError, match="without ask"):
        search.tell([])
    search.ask()
    with pytest.raises(ValueError, match="3 utilities for 4 rows"):
        search.tell([0.0] * 3)


@every
def test_fewer_than_two_working_experts_are_a_users_mistake(kind):
    search = search_of(kind)
    search.ask()
    with pytest.raises(UserError, match="1 of 4 experts"):
        search.tell([None, 0.5, None, None])
    with pytest.raises(UserError, match="1 expert"):
        search_of(kind, experts=1)


@every
def test_the_same_seed_gives_the_same_asks_and_another_seed_does_not(kind):
    runs = [run(search_of(kind, seed=seed, max_generations=5), flaky) for seed in (3, 3, 4)]
    assert same_asks(runs[0], runs[1])
    assert not same_asks(runs[0], runs[2])


SLOW = ("lorahub", "bayes")
"""Their optimizers take long."""


@every
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_improves_on_the_best_expert_of_a_bowl(kind, seed):
    search = search_of(kind, seed=seed, max_generations=6 if kind in SLOW else 30)
    run(search, bowl)
    assert search.global_best.utility > max(search.expert_utilities) + 0.02


@every
def test_it_stops_after_max_generations(kind):
    search = search_of(kind, max_generations=3, patience=None)
    run(search, bowl)
    assert (search.stop_reason, search.generation) == ("max_generations", 3)


@every
def test_zero_generations_only_evaluate_the_initial_population(kind):
    search = search_of(kind, max_generations=0)
    assert {ask.generation for ask in run(search, bowl)} == {0}
    assert search.stop_reason == "max_generations"


@every
def test_it_stops_by_patience_counted_from_the_generation_of_the_global_best(kind):
    search = search_of(kind, patience=3, max_generations=50)
    run(search, lambda ask: [float(ask.generation == 2 and k == 0) for k in range(len(ask.rows))])
    assert search.global_best.generation == 2
    assert (search.stop_reason, search.generation) == ("patience", 5)


@every
def test_nothing_measured_is_thrown_away(kind):
    search = search_of(kind, max_generations=6, patience=None)
    seen = []

    def utility(ask):
        utilities = flaky(ask)
        seen.extend(u for u in utilities if u is not None)
        return utilities

    run(search, utility)
    assert search.global_best.utility == max(seen)
    assert search.global_worst.utility == min(seen)
    assert search.ranking(5)[0].utility == max(seen)


@every
def test_the_ranking_is_distinct_sorted_and_starts_with_the_global_best(kind):
    search = search_of(kind, max_generations=5, patience=None)
    run(search, flaky)
    ranking = search.ranking(8)
    if search.config.several:  # the ranking is the front, and with one objective that is one row
        assert [best.utility for best in ranking] == [search.global_best.utility]
        return
    assert len({best.row.tobytes() for best in ranking}) == len(ranking) >= 4
    assert [best.utility for best in ranking] == sorted((best.utility for best in ranking), reverse=True)
    assert ranking[0].row.tolist() == search.global_best.row.tolist()
    assert [b.utility for b in search.ranking(2)] == [b.utility for b in ranking[:2]]
    assert search.ranking(0) == []


def smallest(kind: str) -> int:
    return 4 if kind in ("cma_es", "evolmerge") else 2


@every
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_size_and_any_legal_utilities_run_without_nan(kind, data):
    experts, population = data.draw(st.integers(2, 9)), data.draw(st.integers(smallest(kind), 12))
    more = {"max_population": population + data.draw(st.integers(0, 5))} if kind == "genome_plus" else {}
    if kind.startswith("genome"):
        more |= {"initial": data.draw(st.sampled_from(["mixes", "experts"])), "mutation_rate": 0.5}
    search = search_of(kind, experts=experts, population=population, max_generations=4, **more)
    number = st.one_of(st.none(), st.sampled_from([0.0, -1.0, 1.0, -1e308, 1e308, 5e-324]), st.floats(-2, 2))

    def utility(ask):
        count = len(ask.rows)
        told = data.draw(st.lists(number, min_size=count, max_size=count))
        return [0.0, *told[1:-1], 0.0] if ask.phase == "experts" else told

    while search.stop_reason is None:
        for ask in run_generation(search, utility):
            assert np.isfinite(ask.rows).all()
            assert len(set(ask.particles)) == len(ask.rows)
        told = ("utilities", "objectives")
        assert all(np.isfinite(a).all() for name, a in search.arrays().items() if not name.endswith(told))
        assert not any(np.isnan(a).any() for a in search.arrays().values())
        limit = max(population, more.get("max_population", 0), experts if kind in SAMPLING else 0)
        limit = max(limit, experts + 2) if kind == "bayes" else limit
        limit = max(limit, experts) if kind == "evogm" else limit
        assert 1 <= len(search.population) <= limit
        assert np.isfinite(search.global_best.utility)


@every
@pytest.mark.parametrize(("experts", "population"), [(2, 2), (2, 1000), (1000, 2), (30, 5)])
def test_extreme_sizes_are_legal(kind, experts, population):
    population = max(population, smallest(kind))
    cubic = ("cma_es", "evolmerge", "bayes")  # their cost grows with the cube of the experts
    experts = min(experts, 100) if kind in cubic else experts
    population = min(population, 100) if kind == "bayes" else population
    more = {"max_population": population} if kind == "genome_plus" else {}
    search = search_of(kind, experts=experts, population=population, max_generations=2, **more)
    run(search, lambda ask: bowl(ask, experts=experts))
    assert search.generation == 2
    if kind != "m2n2":  # its population grows child by child
        assert len(search.population) == (1 if kind == "bayes" else population)


@every
def test_a_population_where_everything_after_the_experts_fails_continues(kind):
    search = search_of(kind, max_generations=5, patience=None)
    run(search, lambda ask: bowl(ask) if ask.phase == "experts" else [None] * len(ask.rows))
    assert search.generation == 5
    assert search.global_best.utility == max(search.expert_utilities)
    assert search.global_best.generation == 0


@every
@pytest.mark.parametrize("constant", [0.0, -1.0, 1.0])
def test_equal_utilities_are_legal_and_the_first_measured_is_the_best(kind, constant):
    search = search_of(kind, max_generations=5)
    run(search, lambda ask: [constant] * len(ask.rows))
    assert search.generation == 5
    assert search.global_best.row[:4].tolist() == [1.0, 0.0, 0.0, 0.0]


def affine_settings(kind: str) -> dict:
    return {"mutation_rate": 0.0} if kind.startswith("genome") or kind == "nsga2" else {}


@pytest.mark.parametrize("kind", sorted(CONFIGS.keys() - {"lorahub", "bayes", "evogm", "pso_merging"}))
def test_without_mutation_coefficients_sum_to_one_for_ever(kind):
    search = search_of(kind, max_generations=40, patience=None, **affine_settings(kind))
    for ask in run(search, flaky):
        np.testing.assert_allclose(ask.rows.sum(axis=1), 1.0, atol=1e-9)


@every
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_search_never_goes_above_its_evaluations_and_stops_only_where_it_might(kind, data):
    largest = 40 if kind in SLOW else 120
    limit, seed = data.draw(st.integers(14, largest)), data.draw(st.integers(0, 9))
    search = search_of(kind, population=6, max_generations=50, patience=None, max_evaluations=limit, seed=seed)
    utility = data.draw(st.sampled_from([bowl, flaky]))
    asks = run(search, utility)
    used = sum(len(ask.rows) for ask in asks)
    assert search.state.evaluations == used <= limit
    if search.stop_reason == "max_evaluations" and utility is bowl:
        longer = search_of(kind, population=6, max_generations=50, patience=None, seed=seed)
        while longer.generation <= search.generation:
            asks = run_generation(longer, utility)
        assert longer.state.evaluations > limit
