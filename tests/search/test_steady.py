"""Searches without barrier: a function of the seed and of the order in which slots are told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from search_helpers import bowl, rebase_if_due, run_generation, search_of

from evoswarm.config import ModelSwarms
from evoswarm.search import Ask, SteadySearch

KINDS = ["model_swarms", "genome"]
SETTINGS = {"steady_state": True, "population": 5, "max_generations": 8}


def steady(kind: str, **more) -> SteadySearch:  # type: ignore[no-untyped-def]
    search = search_of(kind, **SETTINGS | more)
    run_generation(search, bowl)
    assert isinstance(search, SteadySearch)
    return search


def utility(ask: Ask, i: int) -> float | None:
    return bowl(Ask(ask.generation, ask.phase, (0,), ask.rows[i : i + 1]))[0]


def trimmed(row: np.ndarray) -> bytes:
    """A row without the columns that came after it."""
    return np.trim_zeros(row, "b").tobytes()


def in_slots(ask: Ask) -> np.ndarray:
    return ask.rows[np.argsort(ask.particles)]


def drive(search: SteadySearch, order: list[int], *, fails: frozenset[int] = frozenset()) -> list[bytes]:
    """Tell slots in this order; returns each row that was under way when it was told. `fails`: which tells fail."""
    known = {}
    asks = [search.flight()]
    seen = []
    for turn, slot in enumerate(order):
        for ask in asks:
            known |= {s: (trimmed(ask.rows[i]), utility(ask, i)) for i, s in enumerate(ask.particles)}
        row, value = known[slot]
        seen.append(row)
        asks = [search.take_in(slot, None if turn in fails else value)]
    return seen


orders = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(order=orders, cut=st.integers(0, 8))
def test_the_same_order_gives_the_same_search_also_from_a_checkpoint(kind, order, cut) -> None:  # type: ignore[no-untyped-def]
    whole, first, second = steady(kind), steady(kind), search_of(kind, **SETTINGS)
    rows = drive(whole, order)
    at = min(5 * cut, len(order) // 5 * 5)
    before = drive(first, order[:at])
    second.restore(first.arrays(), first.scalars())
    assert isinstance(second, SteadySearch)
    assert before + drive(second, order[at:]) == rows
    assert (whole.flight().rows == second.flight().rows).all()
    assert [(b.row.tobytes(), b.utility) for b in whole.ranking(3)] == [
        (b.row.tobytes(), b.utility) for b in second.ranking(3)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_particle_goes_on_without_waiting_for_the_others(kind: str) -> None:
    search = steady(kind)
    before = in_slots(search.flight())
    after = search.take_in(2, 0.5).rows[0]
    assert trimmed(after) != trimmed(before[2])
    now = in_slots(search.flight())
    assert (now[[0, 1, 3, 4], : before.shape[1]] == before[[0, 1, 3, 4]]).all() and (now[2] == after).all()
    assert search.flight().particles == (0, 1, 3, 4, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_utilities_as_particles_make_a_generation(kind: str) -> None:
    search = steady(kind)
    for told in range(1, 16):
        search.take_in(told % 2, 0.1)
        assert search.generation == told // 5 and search.finished_generation == (told % 5 == 0)
        if told % 5:
            with pytest.raises(ValueError):
                search.arrays()


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(order=orders, fails=st.frozensets(st.integers(0, 39)))
def test_a_failed_evaluation_is_no_best_no_worst_and_no_parent(kind, order, fails) -> None:  # type: ignore[no-untyped-def]
    search = steady(kind)
    rows = drive(search, order, fails=fails)
    failed = {rows[i] for i in fails if i < len(rows)} - {row for i, row in enumerate(rows) if i not in fails}
    assert search.global_best is not None and trimmed(search.global_best.row) not in failed
    assert all(m.best_utility is not None and np.isfinite(m.best_utility) for m in search.population)
    if kind == "genome":
        assert all(trimmed(m.row) not in failed for m in search.population)


def test_the_order_matters_to_a_swarm() -> None:
    one, other = steady("model_swarms"), steady("model_swarms")
    drive(one, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    drive(other, [4, 3, 2, 1, 0, 4, 3, 2, 1, 0])
    assert (one.flight().rows != other.flight().rows).any()


def test_moves_in_turn_are_those_of_the_swarm_with_the_bests_of_the_moment() -> None:
    """With no pull but inertia, the bests do not matter, and the steady swarm is the swarm."""
    alone = {"cognitive": 0, "social": 0, "repel": 0, "restart_patience": None, "patience": None}
    search, other = steady("model_swarms", **alone), search_of("model_swarms", population=5, **alone)
    run_generation(other, bowl)
    for _ in range(4):
        flight = search.flight().rows
        (ask,) = run_generation(other, bowl)
        assert np.allclose(ask.rows, flight, rtol=0, atol=1e-15)
        drive(search, [0, 1, 2, 3, 4])


def test_rows_of_a_swarm_keep_the_sum_1() -> None:
    search = steady("model_swarms")
    drive(search, [0, 1, 0, 2, 3, 3, 4] * 5)
    assert np.allclose(search.flight().rows.sum(axis=1), 1)


def test_the_population_of_a_genome_stays_and_its_noise_is_added_up() -> None:
    search = steady("genome", mutation_rate=1.0, max_noise_vectors=3, max_generations=50)
    rng = np.random.default_rng(0)
    for _ in range(30):
        drive(search, [int(slot) for slot in rng.integers(5, size=5)])
        rebase_if_due(search)
        assert len(search.population) == 5 and len(search.basis) <= 4 + 3 + 16
    assert any(type(vector).__name__ == "SavedVector" for vector in search.basis)


def test_a_first_population_that_failed_as_a_whole_begins_with_the_best_expert() -> None:
    search = search_of("genome", **SETTINGS)
    search.tell(bowl(search.ask()))
    search.tell([None] * len(search.ask().particles))
    assert isinstance(search, SteadySearch) and len(search.flight().particles) == 5
    assert [member.utility for member in search.population] == [search.global_best.utility]  # type: ignore[union-attr]


def test_steady_state_refuses_never_to_measure() -> None:
    with pytest.raises(ValidationError, match="steady_state waits for utilities"):
        ModelSwarms(steady_state=True, drop_generations=1.0)
    search = steady("model_swarms", drop_particles=0.9)
    assert search.state.steps.max() > 3


def test_what_is_told_wrongly_is_refused() -> None:
    search = steady("genome")
    for slot, value in ((5, 0.1), (-1, 0.1), (0, float("nan"))):
        with pytest.raises(ValueError):
            search.take_in(slot, value)
