from __future__ import annotations

import numpy as np
from search_helpers import bowl, flaky, run, run_generation, search_of

from evoswarm.search.rng import stream

QUIET = {"mutation_rate": 0, "cross_rate": 0}
STILL = {"inertia": 0, "cognitive": 0, "social": 0, "repel": 0}


def test_a_generation_is_succession_then_offspring():
    search = search_of("genome_plus", population=4)
    run_generation(search, bowl)
    asks = run_generation(search, bowl)
    assert [ask.phase for ask in asks] == ["succession", "offspring"]
    assert asks[0].particles == (0, 1, 2, 3)
    assert asks[1].particles == tuple(range(5, 5 + len(asks[1].rows)))


def test_succession_moves_by_the_velocity_update():
    search = search_of("genome_plus", experts=3, population=3, seed=5, step_length=1.0, **QUIET)
    run_generation(search, lambda ask: [0.1, 0.9, 0.4][: len(ask.rows)])
    rows = search.ask().rows
    for i, x in enumerate(np.eye(3)):
        r = stream(5, "move", 1, i).random(4) * [0.2, 0.2, 0.2, 0.1]
        v = (r[2] * (np.eye(3)[1] - x) + r[3] * (x - np.eye(3)[0])) / r.sum()
        np.testing.assert_allclose(rows[i], x + v)


def test_moved_members_are_measured_again_and_elites_stay_as_they_were():
    search = search_of("genome_plus", population=4, elite_rate=0.5, **QUIET)
    run_generation(search, lambda ask: [0.1, 0.9, 0.4, 0.8][: len(ask.rows)])
    succession, _ = run_generation(search, lambda ask: [0.2, 0.3, None, 0.1][: len(ask.rows)])
    moved = succession.rows[[0, 1, 3]].tolist()
    assert [m.row.tolist() for m in search.population] == [*moved, [0, 1, 0, 0], [0, 0, 0, 1]]
    assert [m.utility for m in search.population] == [0.2, 0.3, 0.1, 0.9, 0.8]


def test_personal_bests_are_kept_through_moves_and_are_not_aliases():
    search = search_of("genome_plus", population=4, elite_rate=0, **QUIET)
    run_generation(search, lambda ask: [0.5] * len(ask.rows))
    run_generation(search, lambda ask: [0.9, 0.1, 0.1, 0.1][: len(ask.rows)])
    first, second = search.population[:2]
    assert (first.best_utility, first.best_generation) == (0.9, 1)
    assert first.best_row.tolist() == first.row.tolist()
    assert (second.best_utility, second.best_generation) == (0.5, 0)
    assert second.best_row.tolist() == [0, 1, 0, 0] != second.row.tolist()


def test_newcomers_start_with_velocity_zero_and_themselves_as_personal_best():
    search = search_of("genome_plus", population=4, max_population=40, cross_rate=1, mutation_rate=1, elite_rate=0)
    run_generation(search, bowl)
    succession, offspring = run_generation(search, bowl)
    velocities = search.arrays()["velocities"]
    assert velocities[:4].any(axis=1).all() and not velocities[4:].any()
    for member, row in zip(search.population[4:], offspring.rows, strict=True):
        assert member.best_row.tolist() == member.row.tolist() == row.tolist()
        assert member.best_utility == member.utility


def test_the_step_length_decays_once_per_generation():
    search = search_of("genome_plus", step_length=0.8, step_length_factor=0.5)
    steps = []
    for _ in range(4):
        run_generation(search, bowl)
        steps.append(search.step_length)
    assert steps == [0.8, 0.4, 0.2, 0.1]


def test_with_all_coefficients_zero_succession_keeps_every_weight():
    search = search_of("genome_plus", population=6, elite_rate=0, max_generations=5, **QUIET, **STILL)
    run_generation(search, bowl)
    before = [member.row.tolist() for member in search.population]
    run(search, bowl)
    assert [member.row.tolist() for member in search.population] == before


def test_the_population_grows_to_its_bound_and_no_further():
    search = search_of("genome_plus", population=4, max_population=9, max_generations=8)
    sizes = []
    while search.stop_reason is None:
        run_generation(search, bowl)
        sizes.append(len(search.population))
    assert sizes[0] == 4 and max(sizes) == sizes[-1] == 9
    assert sizes == sorted(sizes)


def test_the_ranking_is_made_of_personal_bests():
    search = search_of("genome_plus", population=4, max_generations=6)
    run(search, flaky)
    known = {m.best_row.tobytes() for m in search.population} | {search.global_best.row.tobytes()}
    assert {best.row.tobytes() for best in search.ranking(99)} == known
