"""PSO-Merging: its first swarm and its move."""

from __future__ import annotations

import numpy as np
import pytest
from search_helpers import bowl, flaky, run_generation, search_of

from evoswarm.rows import ExpertVector, SparseVector
from evoswarm.search.pso_merging import PsoMerging
from evoswarm.search.rng import stream


def test_the_first_swarm_is_the_experts_their_sparsified_copies_and_the_base():
    search = search_of("pso_merging", experts=3, population=9, density=0.3)
    _, rest = run_generation(search, lambda ask: bowl(ask, experts=3))
    copies = [("e0", 0), ("e1", 0), ("e2", 0), ("e0", 1), ("e1", 1)]
    masks = [SparseVector(name, seed=7, copy=copy, density=0.3) for name, copy in copies]
    assert search.basis == [*(ExpertVector(f"e{i}") for i in range(3)), *masks]
    assert rest.rows.tolist() == [*np.eye(8)[3:].tolist(), [0.0] * 8]
    assert len(search.population) == 9


def test_sparsified_copies_of_a_failed_expert_are_left_out():
    search = search_of("pso_merging", experts=3, population=9)
    search.ask()
    search.tell([0.5, None, 0.4])
    assert np.flatnonzero(search.ask().rows.any(axis=0)).tolist() == [3, 5, 6]


def test_a_small_swarm_is_the_best_experts_and_the_base():
    search = search_of("pso_merging", experts=3, population=3)
    search.ask()
    search.tell([0.1, 0.5, 0.4])
    assert search.ask().rows.tolist() == [[0.0, 0, 0]]
    search.tell([0.2])
    assert [member.row.tolist() for member in search.population] == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_particle_moves_as_in_the_paper():
    search = search_of("pso_merging", inertia=0.2, cognitive=1.5, social=2.5)
    for t in (1, 2):
        while search.generation < t - 1:
            run_generation(search, flaky)
        before, best = search.population, search.global_best.row
        velocities, rows = search.state.velocities.copy(), search.ask().rows
        for i, member in enumerate(before):
            first, second = stream(7, "move", t, i).random(2)
            pulls = 1.5 * first * (member.best_row - member.row) + 2.5 * second * (best - member.row)
            np.testing.assert_allclose(rows[i], member.row + 0.2 * velocities[i] + pulls, atol=1e-12)


@pytest.mark.parametrize(("budget", "size"), [(40, 20), (42, 21), (500, 21), (12, 11)])
def test_at_a_budget_the_swarm_is_the_published_one_if_it_can_move(budget, size):
    assert PsoMerging().at_budget(budget, experts=10)["population"] == size
