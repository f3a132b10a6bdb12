from __future__ import annotations

import numpy as np
import pytest
from search_helpers import bowl, flaky, run, run_generation, search_of

from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, LayersVector, Row


def test_samples_scatter_around_the_uniform_mix_and_sum_to_one():
    search = search_of("cma_es", population=400, sigma=0.1)
    run_generation(search, bowl)
    rows = search.ask().rows
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    np.testing.assert_allclose(rows.mean(axis=0), 0.25, atol=0.02)
    np.testing.assert_allclose(rows.std(axis=0), 0.1 * np.sqrt(3 / 4), atol=0.01)


def test_without_the_shift_the_sums_differ():
    search = search_of("cma_es", population=100, affine=False)
    run_generation(search, bowl)
    assert search.ask().rows.sum(axis=1).std() > 0.3


def test_a_failed_expert_has_no_part_in_any_sample():
    search = search_of("cma_es", max_generations=3)
    asks = run(search, lambda ask: [0.1, None, 0.2, 0.3] if ask.phase == "experts" else flaky(ask))
    samples = np.concatenate([ask.rows for ask in asks if ask.phase == "sample"])
    assert not samples[:, 1].any() and samples[:, [0, 2, 3]].all()


def test_it_finds_the_best_mix_of_a_bowl_closer_than_random_search_does():
    found = {}
    for kind in ("cma_es", "random_search"):
        search = search_of(kind, population=10, max_generations=40, patience=None)
        run(search, bowl)
        found[kind] = 1.0 - search.global_best.utility
    assert found["cma_es"] < 1e-6 < found["random_search"]


def test_a_generation_that_failed_as_a_whole_teaches_nothing():
    search = search_of("cma_es", population=6)
    run_generation(search, bowl)
    before = search.arrays()
    run_generation(search, lambda ask: [None] * 6)
    after = search.arrays()
    assert all(before[name].tobytes() == after[name].tobytes() for name in ("mean", "covariance", "path"))


def test_a_failed_sample_ranks_last():
    """What is told of the one failure makes no difference as long as it is the worst."""

    def told(last):
        search = search_of("cma_es", population=6)
        run_generation(search, bowl)
        run_generation(search, lambda ask: [*bowl(ask)[:5], last])
        return search.ask().rows

    assert told(None).tolist() == told(-1e300).tolist() != told(2.0).tolist()


@pytest.mark.parametrize(
    ("layers", "spans", "edges"),
    [(3, None, [(0, 0), (1, 1), (2, 2)]), (7, 3, [(0, 1), (2, 3), (4, 6)]), (2, 2, [(0, 0), (1, 1)])],
)
def test_the_basis_is_every_expert_in_every_span(layers, spans, edges):
    search = search_of("evolmerge", experts=2, layers=layers, layer_spans=spans)
    assert search.basis == [LayersVector(name, first, last) for name in ("e0", "e1") for first, last in edges]


def test_one_span_is_whole_experts():
    assert search_of("cma_es", layers=5).basis == [ExpertVector(f"e{i}") for i in range(4)]


def test_experts_are_measured_whole_and_every_span_sums_to_one():
    search = search_of("evolmerge", layers=3)
    experts, _ = run_generation(search, lambda ask: [1.0] * len(ask.rows))
    assert experts.rows.reshape(4, 4, 3).tolist() == [[[float(i == j)] * 3 for j in range(4)] for i in range(4)]
    assert Row.of(search.basis, experts.rows[1]).experts == {"e1[0]": 1.0, "e1[1]": 1.0, "e1[2]": 1.0}
    rows = search.ask().rows.reshape(-1, 4, 3)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert abs(rows[:, :, 0] - rows[:, :, 1]).min() > 0


def test_layers_of_their_own_find_what_whole_experts_cannot():
    """Expert 0 is right below, expert 1 above."""
    target = np.zeros((4, 2))
    target[0, 0] = target[1, 1] = 1.0

    def utility(ask):
        spans = ask.rows.shape[1] // 4
        rows = np.repeat(ask.rows.reshape(-1, 4, spans), 2 // spans, axis=2)
        return list(-((rows - target) ** 2).sum(axis=(1, 2)))

    found = {}
    for kind in ("cma_es", "evolmerge"):
        search = search_of(kind, layers=2, max_generations=40)
        run(search, utility)
        found[kind] = search.global_best.utility
    assert found["evolmerge"] > -1e-3 and found["cma_es"] < -0.9


def test_more_spans_than_layers_are_refused():
    with pytest.raises(UserError, match=r"layer_spans is 5, the experts have 4 layer\(s\)"):
        search_of("evolmerge", layers=4, layer_spans=5)


def test_spans_without_the_number_of_layers_are_the_programmers_mistake():
    with pytest.raises(ValueError, match="number of `layers`"):
        search_of("evolmerge", layers=None).ask()
