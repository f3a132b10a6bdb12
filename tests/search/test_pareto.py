"""Searches for several objectives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from search_helpers import rebase_if_due, saved, search_of

from evoswarm.search import SEARCHES, Ask, Outcomes, Search
from evoswarm.search.dominance import (
    by_crowding,
    crowding,
    dominates,
    hypervolume,
    nondominated,
    ranks,
    thinned,
    to_ideal,
)

KINDS = sorted(name for name, search in SEARCHES.items() if search.config_class.several)
every = pytest.mark.parametrize("kind", KINDS)
vectors = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.integers(0, 5).map(float))


def two_bowls(ask: Ask) -> np.ndarray:
    """Objectives [M, 2] whose best rows differ: all of the first expert, or all of the third."""
    far = [((ask.rows[:, :4] - target) ** 2).sum(axis=1) for target in np.eye(4)[[0, 2]]]
    return 1 - np.stack(far, axis=1) - 0.01 * (ask.rows[:, 4:] ** 2).sum(axis=1, keepdims=True)


def told(objectives: np.ndarray) -> tuple[list[float | None], Outcomes]:
    """What a search is told: NaN is a failed evaluation."""
    utilities = [None if np.isnan(u) else float(u) for u in objectives.mean(axis=1)]
    none = np.full((len(objectives), 1), np.nan)
    if not any(u is not None for u in utilities):  # so the loop tells it, which then knows no task
        return utilities, Outcomes(none, none, np.ones(1), (), np.zeros((len(objectives), 0)))
    return utilities, Outcomes(none, none, np.ones(1), ("a", "b"), objectives)


def generation(search: Search, objectives=two_bowls) -> list[tuple[Ask, np.ndarray]]:
    seen = []
    while not seen or not search.finished_generation:
        ask = search.ask()
        found = objectives(ask)
        search.tell(*told(found))
        seen.append((ask, found))
    rebase_if_due(search)
    return seen


def run(search: Search, objectives=two_bowls) -> list[tuple[Ask, np.ndarray]]:
    seen = []
    while search.stop_reason is None:
        seen += generation(search, objectives)
    return seen


def failing(ask: Ask) -> np.ndarray:
    """Every third row after the experts fails."""
    found = two_bowls(ask)
    if ask.phase != "experts":
        found[::3] = np.nan
    return found


@given(vectors)
def test_a_vector_is_nondominated_if_no_other_dominates_it_and_the_first_of_equal_ones(x):
    expected = [
        not any(dominates(y, x[i]) for y in x) and not any((x[j] == x[i]).all() for j in range(i))
        for i in range(len(x))
    ]
    assert nondominated(x).tolist() == expected


@given(vectors)
def test_rank_0_is_what_nothing_dominates_and_every_rank_is_dominated_by_the_one_before(x):
    level = ranks(x)
    for i, vector in enumerate(x):
        above = [level[j] for j in range(len(x)) if dominates(x[j], vector)]
        assert level[i] == (max(above) + 1 if above else 0)


def test_failed_vectors_are_dominated_by_all():
    x = np.array([[0.0, -5.0], [-np.inf, -np.inf], [-5.0, 0.0]])
    assert ranks(x).tolist() == [0, 1, 0]
    assert nondominated(x).tolist() == [True, False, True]


def test_crowding_is_the_gap_between_the_neighbors_and_infinite_at_the_ends():
    x = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 1.0], [4.0, 0.0]])
    assert crowding(x).tolist() == [np.inf, 2 / 4 + 3 / 4, 3 / 4 + 3 / 4, np.inf]
    assert crowding(np.array([[1.0, 2.0]] * 3)).tolist() == [0.0, 0.0, 0.0]  # an objective without a range
    assert by_crowding(x).tolist() == [0, 3, 2, 1]


def test_hypervolume_is_the_dominated_area_above_the_reference_point():
    x = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    assert hypervolume(x, np.zeros(2)) == 3.0
    assert hypervolume(x, np.array([1.0, 0.0])) == 1.0  # what is not above it in every objective has no volume
    assert hypervolume(x[:0], np.zeros(2)) == 0.0


def test_a_thinned_front_keeps_its_ends_and_the_winner_and_drops_the_most_crowded():
    x = np.array([[0.0, 1.0], [0.05, 0.95], [0.1, 0.9], [0.5, 0.5], [1.0, 0.0]])
    assert thinned(x, 3, keep=3).tolist() == [0, 3, 4]
    assert thinned(x, 3, keep=1).tolist() == [0, 1, 4]
    assert thinned(x, 1, keep=2).tolist() == [2]
    assert thinned(x, 9, keep=2).tolist() == [0, 1, 2, 3, 4]


def test_the_knee_does_not_depend_on_the_scale_of_an_objective():
    x = np.array([[0.0, 1.0], [0.7, 0.7], [1.0, 0.0]])
    assert to_ideal(x).argmin() == to_ideal(x * [1, 1000]).argmin() == 1
    assert to_ideal(np.array([[3.0, 3.0]])).tolist() == [0.0]


@every
def test_the_front_is_what_nothing_measured_dominates_and_its_hypervolume_never_falls(kind):
    search, seen, volumes = search_of(kind, population=8, max_generations=8, patience=None), [], []
    while search.stop_reason is None:
        seen += generation(search)
        volumes.append(search.front.hypervolume)
    measured = np.concatenate([found for _, found in seen])
    assert sorted(search.front.objectives.tolist()) == sorted(measured[nondominated(measured)].tolist())
    assert volumes == sorted(volumes) and volumes[-1] > volumes[0]
    assert search.front.hypervolume == hypervolume(search.front.objectives, search.front.reference)


@every
def test_a_front_covers_both_ends(kind):
    search = search_of(kind, population=12, max_generations=20, patience=None)
    run(search)
    assert len(search.front.rows) >= 10
    assert search.front.objectives.max(axis=0).tolist() == [1.0, 1.0]


@every
def test_a_restored_search_continues_bit_for_bit_with_failures_and_rebasing(kind):
    settings = {"population": 6, "max_generations": 9, "patience": None}
    settings |= {"mutation_rate": 0.5, "max_noise_vectors": 3} if kind == "nsga2" else {"drop_particles": 0.3}
    search, checkpoints = search_of(kind, **settings), []
    while search.stop_reason is None:
        generation(search, failing)
        checkpoints.append(saved(search))
    for checkpoint in checkpoints[:-1]:
        other = search_of(kind, **settings)
        other.restore(*checkpoint)
        run(other, failing)
        assert saved(other)[1] == checkpoints[-1][1]
        for name, array in checkpoints[-1][0].items():
            assert other.arrays()[name].tobytes() == array.tobytes(), name


@every
def test_generations_without_a_success_change_nothing(kind):
    search = search_of(kind, population=6, max_generations=4, patience=None)
    generation(search)
    before = search.front.objectives.tolist()
    run(search, lambda ask: np.full((len(ask.rows), 2), np.nan))
    assert search.generation == 4 and search.front.objectives.tolist() == before


@every
def test_the_winner_is_the_knee_or_the_best_by_utility_or_by_weights(kind):
    settings = {"population": 10, "max_generations": 6, "patience": None}
    knee, utility = search_of(kind, **settings), search_of(kind, choose="utility", **settings)
    first = search_of(kind, weights={"a": 2.0, "b": 0.0}, **settings)
    for search in (knee, utility, first):
        run(search)
    front = utility.front.objectives
    assert utility.global_best.utility == front.mean(axis=1).max()
    assert first.global_best.row[:4].tolist() == [1.0, 0.0, 0.0, 0.0]
    place = int(to_ideal(knee.front.objectives).argmin())
    assert knee.global_best.row.tolist() == knee.front.rows[place].row.tolist()
    assert [best.row.tolist() for best in knee.ranking(1)] == [knee.global_best.row.tolist()]
    assert len(knee.ranking(5)) == 5 and knee.ranking(5)[0].row.tolist() == knee.global_best.row.tolist()


@every
def test_the_reference_point_is_zero_or_the_worst_expert_or_as_given_and_never_moves(kind):
    def shifted(ask: Ask) -> np.ndarray:
        return two_bowls(ask) + [2.0, 0.0]

    search = search_of(kind, population=6, max_generations=3)
    (_, experts), *_ = generation(search, shifted)
    assert search.front.reference.tolist() == [0.0, experts[:, 1].min()]
    before = search.front.reference.tolist()
    run(search, shifted)
    assert search.front.reference.tolist() == before
    given = search_of(kind, population=6, max_generations=1, reference={"b": -7.0, "a": 1.0})
    run(given, shifted)
    assert given.front.reference.tolist() == [1.0, -7.0]


@every
def test_patience_counts_from_the_last_rise_of_the_hypervolume(kind):
    search = search_of(kind, population=6, max_generations=50, patience=3)
    run(search, lambda ask: np.tile([0.5, 0.5], (len(ask.rows), 1)))
    assert (search.stop_reason, search.generation) == ("patience", 3)


@every
def test_a_row_with_an_objective_that_is_no_number_counts_as_failed(kind):
    def strange(ask: Ask) -> np.ndarray:
        found = two_bowls(ask)
        if ask.phase != "experts":
            found[:, 1] = np.inf
        return found

    search = search_of(kind, population=6, max_generations=2)
    while search.stop_reason is None:
        ask = search.ask()
        found = strange(ask)
        search.tell([0.5] * len(found), told(found)[1])
    assert all(row.generation == 0 for row in search.front.rows)
    assert np.isfinite(search.front.objectives).all()


def test_every_particle_follows_a_row_of_the_front():
    search = search_of("pareto_swarms", population=9, patience=None)
    generation(search)
    leaders = search._leaders(1)
    front = [row.row.tolist() for row in search.front.rows]
    assert leaders.shape == (9, 4)
    assert all(leader in front for leader in leaders.tolist()) and len({tuple(row) for row in leaders}) > 1


def test_a_personal_best_gives_way_to_what_it_does_not_dominate():
    search = search_of("pareto_swarms", population=4, max_generations=1, patience=None)
    start = np.array([[1.0, 1.0]] * 4)
    moved = np.array([[2.0, 2.0], [0.5, 0.5], [2.0, 0.0], [1.0, 1.0]])
    run(search, lambda ask: moved if ask.phase == "move" else start[: len(ask.rows)])
    assert [best.best_generation for best in search.population] == [1, 0, 1, 0]


def test_nsga2_keeps_the_rank_before_the_crowding():
    search = search_of("nsga2", population=3, max_generations=1, mutation_rate=0.0, patience=None)
    seen = run(search)
    measured = np.concatenate([found for _, found in seen])
    kept = search.state.members.vectors
    assert len(kept) == 3
    worst = max(ranks(measured)[(measured == vector).all(axis=1)].min() for vector in kept)
    assert (ranks(measured) < worst).sum() <= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ensemble_size": 5}, "do not vote"),
        ({"weights": {"a": 0, "b": 0}}, "all zero"),
        ({"weights": {"a": -1, "b": 2}}, "greater than or equal to 0"),
        ({"reference": {"a": float("nan")}}, "finite"),
        ({"choose": "best"}, "knee"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, settings, message):
    with pytest.raises(ValidationError, match=message):
        SEARCHES[kind].config_class(**settings)
