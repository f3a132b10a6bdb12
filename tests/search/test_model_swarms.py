from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import bowl, flaky, run, run_generation, search_of

from evoswarm.search.rng import stream


def constant(ask):
    return [0.5] * len(ask.rows)


def test_the_population_is_experts_then_children_of_two_earlier_positions():
    search = search_of("model_swarms", experts=3, population=5, seed=9)
    _, rest = run_generation(search, constant)
    rows = list(np.eye(3))
    for i in (3, 4):
        rng = stream(9, "populate", 0, i)
        a, b = rng.choice(i, 2, replace=False)
        w = 2 * rng.random()
        rows.append(w * rows[a] + (1 - w) * rows[b])
    assert rest.rows.tolist() == [row.tolist() for row in rows[3:]]
    assert [member.row.tolist() for member in search.population] == [row.tolist() for row in rows]


def test_with_fewer_particles_than_experts_the_best_experts_start_best_first():
    search = search_of("model_swarms", experts=4, population=2)
    run_generation(search, lambda ask: [0.5, None, 0.9, 0.5][: len(ask.rows)])
    assert [member.row.tolist() for member in search.population] == [[0, 0, 1, 0], [1, 0, 0, 0]]


def test_a_failed_expert_is_neither_in_the_population_nor_a_parent():
    search = search_of("model_swarms", experts=4, population=30)
    experts = [0.1, None, 0.2, 0.3]
    _, rest = run_generation(search, lambda ask: experts if ask.phase == "experts" else [0.0] * len(ask.rows))
    assert rest.particles == tuple(range(3, 30))
    assert all(member.row[1] == 0 for member in search.population)


@pytest.mark.parametrize(("mode", "expected"), [("zero", [[0, 0], [0, 0]]), ("best", [[-1, 1], [0, 0]])])
def test_first_velocities_without_randomness(mode, expected):
    search = search_of("model_swarms", experts=2, population=2, velocity=mode)
    run_generation(search, lambda ask: [0.1, 0.9][: len(ask.rows)])
    assert search.arrays()["velocities"].tolist() == expected


def test_random_first_velocities_point_to_another_particle():
    search = search_of("model_swarms", experts=5, population=5, seed=2)
    run_generation(search, constant)
    for i, velocity in enumerate(search.arrays()["velocities"]):
        j = int(stream(2, "velocity", 0, i).integers(4))
        j += j >= i
        assert j != i and velocity.tolist() == (np.eye(5)[j] - np.eye(5)[i]).tolist()


def test_one_move_without_randomness_matches_the_hand_computed_one():
    # g = p_1 = e1, w = e0; C = 2. Particle 0: v = [0.5 (g - x) + 0.5 (x - w)] / 2 = (-.25, .25) with x = p = w
    search = search_of(
        "model_swarms", experts=2, population=2, velocity="zero", weight_randomness=False,
        inertia=0.5, cognitive=0.5, social=0.5, repel=0.5, step_length=0.8,
    )  # fmt: skip
    run_generation(search, lambda ask: [0.1, 0.9][: len(ask.rows)])
    ask = search.ask()
    np.testing.assert_allclose(ask.rows, [[0.8, 0.2], [-0.2, 1.2]])


def test_moves_draw_one_fresh_number_per_particle_and_term():
    search = search_of("model_swarms", experts=3, population=3, seed=5, velocity="zero", step_length=1.0)
    run_generation(search, lambda ask: [0.1, 0.9, 0.4][: len(ask.rows)])
    rows = search.ask().rows
    for i, x in enumerate(np.eye(3)):
        r = stream(5, "move", 1, i).random(4) * [0.2, 0.3, 0.4, 0.05]
        v = (r[2] * (np.eye(3)[1] - x) + r[3] * (x - np.eye(3)[0])) / r.sum()
        np.testing.assert_allclose(rows[i], x + v)


@given(seed=st.integers(0, 99), experts=st.integers(2, 6), population=st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_with_all_coefficients_zero_no_weight_ever_changes(seed, experts, population):
    zero = {"inertia": 0, "cognitive": 0, "social": 0, "repel": 0}
    search = search_of("model_swarms", experts=experts, population=population, seed=seed, max_generations=6, **zero)
    run_generation(search, lambda ask: bowl(ask, experts=experts))
    first = np.array([member.row for member in search.population])
    run(search, lambda ask: bowl(ask, experts=experts))
    assert np.array([member.row for member in search.population]).tolist() == first.tolist()


def test_the_step_length_decays_once_per_generation_down_to_its_floor():
    decay = {"step_length": 0.8, "step_length_factor": 0.5, "min_step_length": 0.15}
    search = search_of("model_swarms", drop_particles=0.5, **decay)
    steps = []
    for _ in range(5):
        run_generation(search, bowl)
        steps.append(search.step_length)
    assert steps == [0.8, 0.4, 0.2, 0.15, 0.15]


def test_the_personal_best_is_not_an_alias_of_the_position():
    search = search_of("model_swarms", population=4)
    run_generation(search, constant)
    run_generation(search, lambda ask: [0.1] * len(ask.rows))
    for i, member in enumerate(search.population):
        assert member.best_row.tolist() == np.eye(4)[i].tolist() != member.row.tolist()
        assert (member.utility, member.best_utility, member.best_generation) == (0.1, 0.5, 0)


def test_a_failed_particle_moves_on_and_becomes_nothing():
    search = search_of("model_swarms", population=4, patience=None, restart_patience=None)
    run_generation(search, constant)
    before = search.population
    run_generation(search, lambda ask: [None, 0.4, None, 0.9])
    after = search.population
    assert [member.utility for member in after] == [None, 0.4, None, 0.9]
    assert [member.best_utility for member in after] == [0.5, 0.5, 0.5, 0.9]
    assert (search.global_best.particle, search.global_worst.particle) == (3, 1)
    for old, new in zip(before, after, strict=True):
        assert old.row.tolist() != new.row.tolist()


def test_a_particle_that_never_succeeded_has_no_personal_best_and_is_moved_without_one():
    search = search_of(
        "model_swarms", experts=2, population=3, velocity="zero", weight_randomness=False,
        inertia=0, cognitive=9, social=1, repel=0, step_length=1.0,
    )  # fmt: skip
    run_generation(search, lambda ask: [0.1, 0.9] if ask.phase == "experts" else [None])
    member = search.population[2]
    assert (member.utility, member.best_utility, member.best_generation) == (None, None, -1)
    np.testing.assert_allclose(search.ask().rows[2], [0.0, 1.0], atol=1e-12)
    assert len(search.ranking(9)) == 2


def test_bests_need_strictly_more_and_the_worst_strictly_less():
    search = search_of("model_swarms", population=4)
    for _ in range(3):
        run_generation(search, constant)
    assert search.global_best.generation == search.global_worst.generation == 0
    assert {member.best_generation for member in search.population} == {0}
    assert search.global_best.row.tolist() == [1, 0, 0, 0]


def test_a_restart_goes_back_to_the_best_with_velocity_zero_and_does_not_fire_again_at_once():
    # only inertia, no pull: x drifts along v until the restart sets x = p and v = 0, then it stands still
    search = search_of(
        "model_swarms", experts=2, population=2, inertia=1, cognitive=0, social=0, repel=0,
        patience=6, restart_patience=0.5, step_length=1.0, step_length_factor=1.0, max_generations=99,
    )  # fmt: skip
    run_generation(search, constant)
    clocks, moved = [], []
    for _ in range(9):
        asks = run_generation(search, constant)
        clocks.append(search.arrays()["clocks"].tolist())
        moved.append(asks[0].rows[0].tolist())
    assert moved == [[0, 1], [-1, 2], [-2, 3]] + [[1, 0]] * 6
    assert clocks == [[0, 0]] * 3 + [[3, 3]] * 3 + [[6, 6]] * 3


def test_an_improvement_sets_the_restart_clock_back():
    search = search_of("model_swarms", population=4, patience=4, restart_patience=0.5, max_generations=99)
    run_generation(search, lambda ask: [0.0] * len(ask.rows))
    for t in range(1, 6):
        run_generation(search, lambda ask: [float(ask.generation), 0.0, 0.0, 0.0])
        assert search.arrays()["clocks"][0] == t
    assert search.arrays()["clocks"].tolist() == [5, 4, 4, 4]


@pytest.mark.parametrize("off", [{"patience": None}, {"restart_patience": None}])
def test_restarts_can_be_switched_off(off):
    search = search_of("model_swarms", population=4, **off)
    for _ in range(12):
        run_generation(search, constant)
    assert search.arrays()["clocks"].tolist() == [0, 0, 0, 0]


def test_a_dropped_generation_moves_everyone_evaluates_no_one_and_counts():
    search = search_of("model_swarms", population=4, drop_generations=1.0, patience=3)
    run_generation(search, bowl)
    before = search.population
    (ask,) = run_generation(search, bowl)
    assert (ask.rows.shape, ask.particles, ask.generation, search.generation) == ((0, 4), (), 1, 1)
    for old, new in zip(before, search.population, strict=True):
        assert old.utility == new.utility and old.best_row.tolist() == new.best_row.tolist()
        assert old.row.tolist() != new.row.tolist()
    run(search, bowl)
    assert (search.stop_reason, search.generation) == ("patience", 3)


def test_a_dropped_particle_moves_as_if_it_had_not_been_dropped_and_keeps_its_utility():
    whole, part = (search_of("model_swarms", population=6, drop_particles=rate) for rate in (0.0, 0.5))
    run_generation(whole, bowl)
    run_generation(part, bowl)
    before = [member.utility for member in part.population]
    (every,), (some,) = run_generation(whole, bowl), run_generation(part, bowl)
    kept = [i for i in range(6) if not stream(7, "drop_particle", 1, i).random() < 0.5]
    assert list(some.particles) == kept and 0 < len(kept) < 6
    for i, member in enumerate(part.population):
        assert member.row.tolist() == every.rows[i].tolist()
        assert i in kept or member.utility == before[i]


def test_velocities_sum_to_zero_so_positions_stay_affine():
    search = search_of("model_swarms", population=8, max_generations=60, patience=None, restart_patience=None)
    run(search, flaky)
    np.testing.assert_allclose(search.arrays()["velocities"].sum(axis=1), 0, atol=1e-9)
