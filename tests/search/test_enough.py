"""What a search needs not know exactly: any value that the bounds allow takes it the same way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import CONFIGS, bowl, flaky, run, search_of

from evoswarm.search import Ask, Search

SETTINGS = {"population": 6, "max_generations": 12, "ensemble_size": 4}


def trajectory(search: Search, asks: list[Ask]) -> list[object]:
    """Everything that the search decided: rows, bests with their utilities, ranking, end."""
    best, worst = search.global_best, search.global_worst
    assert best is not None and worst is not None
    ranked = [(b.row.tobytes(), b.utility, b.generation, b.particle) for b in [best, worst, *search.ranking(4)]]
    bests = (
        [(m.best_row.tobytes(), m.best_utility) for m in search.population]
        if search.algorithm != "random_search"
        else []
    )
    return [[(a.generation, a.phase, a.particles, a.rows.tobytes()) for a in asks], ranked, bests, search.stop_reason]


@pytest.mark.parametrize("utility", [bowl, flaky])
@pytest.mark.parametrize("kind", list(CONFIGS))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), where=st.floats(0, 1))
def test_any_value_within_what_is_enough_takes_every_search_the_same_way(kind, utility, seed, where) -> None:  # type: ignore[no-untyped-def]
    told_less = 0

    def blurred(ask: Ask) -> list[float | None]:
        nonlocal told_less
        values = utility(ask)
        for i, value in enumerate(values):
            if ask.enough is not None and value is not None and ask.enough[i, 0] <= value <= ask.enough[i, 1]:
                low, high = ask.enough[i]
                values[i] = float(np.clip(low + where * (high - low), low, high))
                told_less += 1
        return values

    exact, loose = search_of(kind, seed=seed, **SETTINGS), search_of(kind, seed=seed, **SETTINGS)
    assert trajectory(exact, run(exact, utility)) == trajectory(loose, run(loose, blurred))
    assert told_less == 0 or kind in ("model_swarms", "random_search")


@pytest.mark.parametrize("kind", ["model_swarms", "random_search"])
def test_where_utilities_are_only_compared_some_need_not_be_known(kind: str) -> None:
    asks = run(search_of(kind, **SETTINGS), bowl)
    assert any(ask.enough is not None and (ask.enough[:, 0] < ask.enough[:, 1]).any() for ask in asks)


def test_the_first_generation_is_wanted_exactly() -> None:
    search = search_of("model_swarms", **SETTINGS)
    for _ in range(2):
        ask = search.ask()
        assert ask.generation == 0 and ask.enough is None
        search.tell(bowl(ask))


def test_what_a_particle_without_personal_best_comes_to_is_wanted_exactly() -> None:
    search = search_of("model_swarms", **SETTINGS)
    search.tell(bowl(search.ask()))
    ask = search.ask()
    search.tell([None] * len(ask.particles))
    enough = search.ask().enough
    assert enough is not None
    assert (enough[-len(ask.particles) :, 1] == -np.inf).all() and np.isfinite(enough[: -len(ask.particles)]).all()
