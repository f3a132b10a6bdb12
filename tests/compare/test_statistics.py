from __future__ import annotations

import numpy as np
import pytest

from evoswarm.report.statistics import RESAMPLES, interval, resampled_means


def test_a_resampled_mean_is_that_of_drawn_seeds_and_drawn_examples():
    table = np.random.default_rng(0).random((3, 5))
    means = resampled_means({"a": table}, seed=1)["a"]
    rng = np.random.default_rng(1)
    seeds, examples = rng.multinomial(3, [1 / 3] * 3, RESAMPLES), rng.multinomial(5, [1 / 5] * 5, RESAMPLES)
    for k in (0, 17, 9999):
        drawn = np.repeat(np.repeat(table, seeds[k], axis=0), examples[k], axis=1)
        assert drawn.shape == (3, 5)
        np.testing.assert_allclose(means[k], drawn.mean())


@pytest.mark.parametrize("redrawn", [False, True])
def test_gains_are_paired(redrawn: bool):
    """A method that is better by the same on every example is better for certain, however much examples differ."""
    table = np.random.default_rng(0).random((4, 50))
    means = resampled_means({"a": table, "b": table + 0.1}, redrawn=redrawn)
    gain = interval(0.1, means["b"] - means["a"])
    np.testing.assert_allclose([gain.low, gain.high], 0.1)
    alone = interval(table.mean(), means["a"])
    assert alone.high - alone.low > 0.05


def test_a_method_without_seeds_stands_for_every_seed():
    line = np.random.default_rng(0).random((1, 40))
    means = resampled_means({"once": line, "five times": np.repeat(line, 5, axis=0)})
    np.testing.assert_allclose(means["once"], means["five times"])


@pytest.mark.parametrize(("seeds", "redrawn"), [(1, False), (4, True)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds: int, redrawn: bool):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(25):
        table = rng.normal(0.5, 0.2, (seeds, 100))
        found = interval(table.mean(), resampled_means({"a": table}, redrawn=redrawn)["a"])
        covered += found.low <= 0.5 <= found.high
    assert 21 <= covered <= 25


def test_examples_of_each_seed_are_drawn_on_their_own_where_seeds_have_their_own():
    """With n examples per seed, redrawn examples are S n independent ones, common ones only n."""
    table = np.repeat(np.random.default_rng(0).normal(size=(1, 100)), 4, axis=0)
    common, own = (resampled_means({"a": table}, redrawn=redrawn)["a"].std() for redrawn in (False, True))
    assert own == pytest.approx(common / 2, rel=0.05)


def test_seeds_may_have_different_numbers_of_examples_of_their_own():
    tables = {"a": [np.full(10, 0.2), np.full(30, 0.6)], "b": [np.zeros(10), np.zeros(30)]}
    means = resampled_means(tables, redrawn=True)
    assert sorted(set(np.round(means["a"], 9))) == [0.2, 0.4, 0.6] and not means["b"].any()


@pytest.mark.parametrize("redrawn", [False, True])
def test_utilities_that_are_not_means_are_resampled_over_seeds_alone(redrawn: bool):
    means = resampled_means({"a": np.array([[0.1], [0.2], [0.6]])}, redrawn=redrawn)["a"]
    assert abs(means.mean() - 0.3) < 0.01 and means.min() >= 0.1 - 1e-12 and means.max() <= 0.6 + 1e-12
    assert len(set(np.round(means, 9))) == 10
