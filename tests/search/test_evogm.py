"""EvoGM: its networks, its population, and its rounds."""

from __future__ import annotations

import numpy as np
import pytest
from search_helpers import bowl, run_generation, search_of

from evoswarm.search import generators
from evoswarm.search.generators import CYCLE, forward, improve, losses, network


def test_the_gradients_are_those_of_the_loss(monkeypatch):
    monkeypatch.setattr(generators, "HIDDEN", (7, 6))
    rng = np.random.default_rng(0)
    better, worse = ([2 * layer.astype(float) for layer in network(rng, 3)] for _ in range(2))
    winners, losers = rng.uniform(-1, 1, (2, 4, 3))

    def loss() -> float:
        fake, poor = forward(better, losers)[-1], forward(worse, winners)[-1]
        cycle = ((forward(worse, fake)[-1] - losers) ** 2).mean() + ((forward(better, poor)[-1] - winners) ** 2).mean()
        return CYCLE * cycle + ((fake - winners.mean(axis=0)) ** 2).mean()

    for layers, slopes in zip((better, worse), losses(better, worse, winners, losers), strict=True):
        for layer, slope in zip(layers, slopes, strict=True):
            at = tuple(rng.integers(size) for size in layer.shape)
            value, sides = layer[at], []
            for step in (1e-6, -1e-6):
                layer[at] = value + step
                sides.append(loss())
            layer[at] = value
            assert slope[at] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_trained_networks_move_losers_to_the_winners():
    rng = np.random.default_rng(0)
    winners, losers = rng.normal(0.4, 0.05, (6, 4)), rng.normal(-0.4, 0.05, (14, 4))
    moved = improve(losers, winners, losers, rng=rng, epochs=60, rate=1e-3)
    assert np.abs(moved - 0.4).mean() < 0.3 < np.abs(losers - 0.4).mean()
    assert np.abs(moved).max() <= 1


def test_the_first_population_is_the_experts_their_mean_and_random_rows():
    search = search_of("evogm", population=8)
    _, rest = run_generation(search, bowl)
    assert rest.rows[0].tolist() == [0.25] * 4
    assert rest.rows.shape == (4, 4) and np.abs(rest.rows).max() <= 1 and (rest.rows < 0).any()


def test_the_best_rows_of_a_round_are_the_experts_of_the_next():
    search = search_of("evogm", population=8, round_generations=2)
    asks = [ask for _ in range(3) for ask in run_generation(search, bowl)]
    measured = {row.tobytes(): u for ask in asks for row, u in zip(ask.rows, bowl(ask), strict=True)}
    best = sorted(measured.values(), reverse=True)[:4]
    (fresh, _) = run_generation(search, bowl)
    assert (fresh.phase, len(fresh.rows)) == ("population", 4)
    elites = search.state.elites
    np.testing.assert_allclose(fresh.rows[0], elites.mean(axis=0))
    np.testing.assert_allclose(1 - ((elites - BEST) ** 2).sum(axis=1), best)
    (sample,) = run_generation(search, bowl)
    assert (sample.phase, len(sample.rows)) == ("sample", 8)


BEST = np.linspace(1.0, -0.5, 4) / np.linspace(1.0, -0.5, 4).sum()
"""The best row of the bowl."""


def test_failed_experts_and_rows_are_left_out():
    search = search_of("evogm", population=6)
    search.ask()
    search.tell([0.5, None, 0.3, 0.2])
    assert not search.ask().rows[:, 1].any()
    search.tell([0.1, None, *[0.2] * (len(search.ask().rows) - 2)])
    assert len(search.state.history) == 5
    assert not search.ask().rows[:, 1].any()
