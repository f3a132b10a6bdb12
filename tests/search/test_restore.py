from __future__ import annotations

import json

import numpy as np
import pytest
from search_helpers import flaky, rebase_if_due, run_generation, same_asks, saved, search_of

from evoswarm.errors import UserError

CASES = {
    "model_swarms": {"drop_particles": 0.3, "drop_generations": 0.2, "patience": 4, "restart_patience": 0.5},
    "genome": {"mutation_rate": 0.4, "max_noise_vectors": 3},
    "genome_plus": {"mutation_rate": 0.4, "max_noise_vectors": 3, "max_population": 12},
    "random_search": {"spread": 1.5},
    "cma_es": {"population": 6},
    "evolmerge": {"population": 6, "layer_spans": 3, "affine": False, "layers": 7},
    "lorahub": {"population": 5, "max_generations": 9},
    "pso_merging": {"population": 7},
    "m2n2": {"population": 6, "offspring": 3, "layers": 3},
    "evogm": {"population": 6, "round_generations": 2},
    "nsga2": {"population": 6, "mutation_rate": 0.4, "max_noise_vectors": 3},
    "pareto_swarms": {"population": 6, "drop_particles": 0.3},
}
GENERATIONS = 9


def go_on(search) -> list:
    asks = []
    while search.generation < GENERATIONS:
        asks += run_generation(search, flaky)
        rebase_if_due(search)
    return asks


@pytest.mark.parametrize("kind", CASES)
def test_a_search_restored_at_any_generation_continues_bit_for_bit(kind):
    search, checkpoints, asks = search_of(kind, **CASES[kind]), [], []
    while search.generation < GENERATIONS:
        asks += run_generation(search, flaky)
        rebase_if_due(search)
        checkpoints.append(saved(search))
    for generation, checkpoint in enumerate(checkpoints):
        other = search_of(kind, **CASES[kind])
        other.restore(*checkpoint)
        assert other.generation == generation and other.finished_generation
        rest = [ask for ask in asks if ask.generation > generation]
        assert same_asks(go_on(other), rest)
        assert json.dumps(other.scalars()) == json.dumps(search.scalars())
        for name, array in search.arrays().items():
            assert other.arrays()[name].tobytes() == array.tobytes()
            assert other.arrays()[name].dtype == array.dtype


@pytest.mark.parametrize("kind", CASES)
def test_reports_are_the_same_after_restore(kind):
    search, other = search_of(kind, **CASES[kind]), search_of(kind, **CASES[kind])
    for _ in range(5):
        run_generation(search, flaky)
    other.restore(*saved(search))
    assert other.basis == search.basis
    assert (other.stop_reason, other.step_length) == (search.stop_reason, search.step_length)
    assert other.expert_utilities == search.expert_utilities
    for mine, theirs in zip(search.ranking(5), other.ranking(5), strict=True):
        assert (mine.row.tobytes(), mine.utility, mine.generation, mine.particle) == (
            theirs.row.tobytes(),
            theirs.utility,
            theirs.generation,
            theirs.particle,
        )


def test_restore_forgets_a_generation_that_was_going_on():
    search = search_of("model_swarms")
    run_generation(search, flaky)
    checkpoint, first = saved(search), search.ask()
    search.restore(*checkpoint)
    assert search.ask() is not first
    assert same_asks([search.ask()], [first])


def test_the_state_is_read_only_between_generations_and_is_a_copy():
    search = search_of("genome_plus")
    with pytest.raises(ValueError, match="between generations"):
        search.arrays()
    run_generation(search, flaky)
    search.arrays()["members.rows"][:] = np.nan
    assert np.isfinite(search.arrays()["members.rows"]).all()
    search.ask()
    with pytest.raises(ValueError, match="between generations"):
        search.scalars()


def test_scalars_hold_no_infinity_and_arrays_no_nan():
    search = search_of("genome_plus")
    run_generation(search, lambda ask: flaky(ask) if ask.phase == "experts" else [None] * len(ask.rows))
    json.dumps(search.scalars(), allow_nan=False)
    assert not any(np.isnan(array).any() for array in search.arrays().values())


def test_a_longer_run_can_be_resumed_after_it_stopped():
    short, longer = search_of("genome", max_generations=2), search_of("genome", max_generations=4)
    while short.stop_reason is None:
        run_generation(short, flaky)
    longer.restore(*saved(short))
    assert (short.stop_reason, longer.stop_reason) == ("max_generations", None)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (("genome", {}), "algorithm"),
        (("model_swarms", {"seed": 8}), "seed"),
        (("model_swarms", {"experts": 5}), "experts"),
    ],
)
def test_the_state_of_another_run_is_refused(other, word):
    search = search_of("model_swarms")
    run_generation(search, flaky)
    with pytest.raises(UserError, match=word):
        search_of(other[0], **other[1]).restore(*saved(search))


def test_an_incomplete_state_is_refused():
    search = search_of("model_swarms")
    run_generation(search, flaky)
    arrays, scalars = saved(search)
    del arrays["velocities"]
    with pytest.raises(ValueError, match="'velocities'"):
        search_of("model_swarms").restore(arrays, scalars)
