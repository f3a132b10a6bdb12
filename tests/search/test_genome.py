from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import bowl, flaky, run, run_generation, search_of

from evoswarm.rows import NoiseVector
from evoswarm.search.operators import roulette_weights
from evoswarm.search.rng import stream


def by_phase(experts):
    """Utilities of the experts as given, 0.5 for all others."""
    return lambda ask: experts if ask.phase == "experts" else [0.5] * len(ask.rows)


def test_the_first_population_mixes_all_pairs_in_shuffled_order_and_then_again():
    search = search_of("genome", experts=3, population=5, seed=3)
    run_generation(search, by_phase([0.1, 0.2, 0.3]))
    pairs = list(combinations(range(3), 2))
    order = stream(3, "pairs", 0, 0).permutation(3)
    for i, member in enumerate(search.population):
        first, second = pairs[order[i % 3]]
        a = stream(3, "mix", 0, i).random()
        assert member.row.tolist() == (a * np.eye(3)[first] + (1 - a) * np.eye(3)[second]).tolist()


@pytest.mark.parametrize("kind", ["genome", "genome_plus"])
def test_the_first_population_may_be_the_experts_filled_up_with_mixes(kind):
    search = search_of(kind, experts=3, population=5, initial="experts", seed=3)
    _, rest = run_generation(search, by_phase([0.1, None, 0.3]))
    assert [member.row.tolist() for member in search.population[:2]] == [[1, 0, 0], [0, 0, 1]]
    assert [member.utility for member in search.population] == [0.1, 0.3, 0.5, 0.5, 0.5]
    assert rest.particles == (2, 3, 4)
    for i, row in zip(rest.particles, rest.rows, strict=True):
        a = stream(3, "mix", 0, i).random()
        assert row.tolist() == [a, 0, 1 - a]


def test_more_experts_than_places_start_with_the_best():
    search = search_of("genome", experts=4, population=2, initial="experts")
    run_generation(search, by_phase([0.1, 0.9, 0.5, 0.9]))
    assert [member.row.tolist() for member in search.population] == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_crossover_draws_and_mixes_as_documented():
    search = search_of("genome", experts=4, population=4, initial="experts", mutation_rate=0, cross_rate=0.7, seed=11)
    run_generation(search, by_phase([0.2, 0.4, 0.1, 0.3]))
    expected, f = [], np.array([0.2, 0.4, 0.1, 0.3])
    for i in range(2):
        rng = stream(11, "crossover", 1, i)
        if rng.random() < 0.7:
            a, b = rng.choice(4, 2, replace=False, p=f / f.sum())
            expected.append((f[a] * np.eye(4)[a] + f[b] * np.eye(4)[b]) / (f[a] + f[b]))
    ask = search.ask()
    assert (ask.phase, ask.particles) == ("offspring", tuple(range(4, 4 + len(expected))))
    np.testing.assert_allclose(ask.rows, np.reshape(expected, (-1, 4)))
    assert len(expected) > 0


def test_mutation_adds_one_noise_column_per_mutant_of_members_and_children():
    search = search_of("genome", experts=3, population=4, mutation_rate=1, cross_rate=1, gene_rate=0.3, sigma=0.2)
    run_generation(search, bowl_of_three)
    members = np.array([member.row for member in search.population])
    ask = search.ask()
    assert ask.rows.shape == (2 + 6, 3 + 6)
    assert search.basis[3:] == [NoiseVector(7, 1, i, 0.3, 0.2) for i in range(6)]
    children, mutants = ask.rows[:2], ask.rows[2:]
    assert not children[:, 3:].any()
    assert mutants[:, 3:].tolist() == np.eye(6).tolist()
    assert mutants[:, :3].tolist() == [*members.tolist(), *children[:, :3].tolist()]


def bowl_of_three(ask):
    return bowl(ask, experts=3)


def test_without_crossover_and_mutation_there_are_no_offspring_and_nothing_changes():
    search = search_of("genome", cross_rate=0, mutation_rate=0)
    run_generation(search, bowl)
    before = [member.row.tolist() for member in search.population]
    (ask,) = run_generation(search, bowl)
    assert ask.rows.shape == (0, 4)
    assert [member.row.tolist() for member in search.population] == before


def is_child_of(child, parents, weights) -> bool:
    for a, b in permutations(range(len(parents)), 2):
        share = weights[a] / (weights[a] + weights[b]) if weights[a] > 0 and weights[b] > 0 else 0.5
        if np.allclose(child, share * parents[a] + (1 - share) * parents[b], atol=1e-12):
            return True
    return False


@given(failed=st.sets(st.integers(0, 5), max_size=6), seed=st.integers(0, 50), low=st.sampled_from([-1.0, 0.0, 0.5]))
@settings(max_examples=40, deadline=None)
def test_a_failed_member_is_not_a_parent_and_does_not_survive(failed, seed, low):
    def utility(ask):
        if ask.phase == "population":
            return [None if i in failed else low + 0.1 * i for i in ask.particles]
        return bowl(ask)

    search = search_of("genome", population=6, mutation_rate=0.6, seed=seed, elite_rate=1.0)
    run_generation(search, utility)
    good = [member for member in search.population if member.utility is not None]
    parents, weights = [m.row for m in good], roulette_weights(np.array([m.utility for m in good]))
    (ask,) = run_generation(search, utility)
    children = [row[:4] for row in ask.rows if not row[4:].any()]
    assert len(good) >= 2 or not children
    assert all(is_child_of(child, parents, weights) for child in children)
    sound = np.array([*parents, *children]).reshape(-1, 4)
    for mutant in (row for row in ask.rows if row[4:].any()):
        assert (sound == mutant[:4]).all(axis=1).any()
    assert all(member.utility is not None for member in search.population)


@pytest.mark.parametrize("kind", ["genome", "genome_plus"])
def test_no_generation_loses_an_elite(kind):
    search = search_of(kind, population=10, elite_rate=0.3, max_generations=15, mutation_rate=0.5)
    run_generation(search, flaky)
    places = search.config.max_population if kind == "genome_plus" else 10
    while search.stop_reason is None:
        elites = sorted((m.utility for m in search.population if m.utility is not None), reverse=True)[:3]
        run_generation(search, flaky)
        now = sorted((m.utility for m in search.population), reverse=True)
        assert len(now) <= places
        assert all(mine >= theirs for mine, theirs in zip(now, elites, strict=False))


def test_the_best_of_members_and_offspring_survive_as_they_are():
    search = search_of("genome", population=10, elite_rate=0.25, mutation_rate=1.0)
    run_generation(search, bowl)
    members = [(m.utility, m.row) for m in search.population]
    (ask,) = run_generation(search, bowl)
    every = members + list(zip(bowl(ask), ask.rows, strict=True))
    best = sorted(every, key=lambda pair: -pair[0])[:3]
    for (utility, row), member in zip(best, search.population[:3], strict=True):
        assert member.utility == utility
        assert np.trim_zeros(member.row, "b").tolist() == np.trim_zeros(row, "b").tolist()


def test_the_ranking_holds_members_with_the_ask_they_were_measured_in():
    search = search_of("genome", population=6, mutation_rate=0.5, max_generations=4)
    asks = run(search, bowl)
    later = [ask for ask in asks if ask.phase != "experts"]
    seen = {(a.generation, i): u for a in later for i, u in zip(a.particles, bowl(a), strict=True)}
    for best in search.ranking(6)[1:]:
        assert seen[best.generation, best.particle] == best.utility


def test_where_every_member_failed_the_global_best_starts_again():
    search = search_of("genome", population=4, mutation_rate=1.0, max_generations=6)
    run_generation(search, lambda ask: bowl(ask) if ask.phase == "experts" else [None] * len(ask.rows))
    (ask,) = run_generation(search, bowl)
    assert len(ask.rows) == 0
    assert [member.row.tolist() for member in search.population] == [[1, 0, 0, 0]]
    run(search, bowl)
    assert len(search.population) == 4
