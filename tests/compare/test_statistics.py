from __future__ import annotations

import numpy as np

from evoswarm.compare.statistics import RESAMPLES, Bootstrap, interval


def test_a_resampled_mean_is_that_of_drawn_seeds_and_drawn_examples():
    table = np.random.default_rng(0).random((3, 5))
    means = Bootstrap(seeds=3, examples=5, seed=1).means(table)
    rng = np.random.default_rng(1)
    seeds, examples = rng.multinomial(3, [1 / 3] * 3, RESAMPLES), rng.multinomial(5, [1 / 5] * 5, RESAMPLES)
    for k in (0, 17, 9999):
        drawn = np.repeat(np.repeat(table, seeds[k], axis=0), examples[k], axis=1)
        assert drawn.shape == (3, 5)
        np.testing.assert_allclose(means[k], drawn.mean())


def test_gains_are_paired():
    """A method that is better by the same on every example is better for certain, however much examples differ."""
    table = np.random.default_rng(0).random((4, 50))
    bootstrap = Bootstrap(seeds=4, examples=50)
    gain = interval(0.1, bootstrap.means(table + 0.1) - bootstrap.means(table))
    np.testing.assert_allclose([gain.low, gain.high], 0.1)
    alone = interval(table.mean(), bootstrap.means(table))
    assert alone.high - alone.low > 0.05


def test_a_method_without_seeds_stands_for_every_seed():
    line = np.random.default_rng(0).random((1, 40))
    bootstrap = Bootstrap(seeds=5, examples=40)
    np.testing.assert_allclose(bootstrap.means(line), bootstrap.means(np.repeat(line, 5, axis=0)))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(25):
        table = rng.normal(0.5, 0.2, (1, 100))
        found = interval(table.mean(), Bootstrap(seeds=1, examples=100).means(table))
        covered += found.low <= 0.5 <= found.high
    assert 21 <= covered <= 25


def test_utilities_that_are_not_means_are_resampled_over_seeds_alone():
    means = Bootstrap(seeds=3, examples=1).means(np.array([[0.1], [0.2], [0.6]]))
    assert abs(means.mean() - 0.3) < 0.01 and means.min() >= 0.1 - 1e-12 and means.max() <= 0.6 + 1e-12
