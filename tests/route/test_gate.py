"""The gate on made-up embeddings and scores."""

from __future__ import annotations

import numpy as np
import pytest

from evoswarm.errors import UserError
from evoswarm.route.gate import Examples, Gate, always, fit_gate, folds, out_of_fold, require_gate, routed

ALL = np.ones(3, bool)


def made_up(size: int = 120, *, noise: bool = False) -> Examples:
    """Three candidates, each right on the examples of its kind; the kind is in the embedding unless it is noise."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=size)
    embeddings = rng.normal(size=(size, 8)) + (0 if noise else 4 * np.eye(8)[kind])
    return Examples(embeddings, (kind == np.arange(3)[:, None]).astype(float), np.full(size, 1 / size))


def fit(examples: Examples) -> Gate:
    return fit_gate(examples, [ALL], seed=0)


def test_a_gate_finds_which_candidate_is_right_where() -> None:
    examples = made_up()
    assert examples.value(fit(examples).choose(examples.embeddings)) > 0.98
    assert examples.value(out_of_fold(examples, fit, seed=0)) > 0.95
    assert examples.scores.mean(axis=1).max() < 0.5


def test_embeddings_without_information_gain_nothing_out_of_fold() -> None:
    examples = made_up(noise=True)
    assert examples.value(out_of_fold(examples, fit, seed=0)) < 0.45


def test_the_choice_for_an_example_does_not_depend_on_its_own_scores() -> None:
    examples = made_up()
    before = out_of_fold(examples, fit, seed=0)
    _, part = next(iter(folds(len(examples), 0)))
    scores = examples.scores.copy()
    scores[:, part] = 1 - scores[:, part]
    changed = Examples(examples.embeddings, scores, examples.weights)
    assert np.array_equal(out_of_fold(changed, fit, seed=0)[part], before[part])


def test_the_folds_are_all_examples_once() -> None:
    parts = list(folds(23, 5))
    assert sorted(np.concatenate([part for _, part in parts])) == list(range(23))
    assert all(sorted([*rest, *part]) == list(range(23)) for rest, part in parts)


def test_a_group_that_is_better_out_of_fold_is_chosen() -> None:
    examples = made_up()
    only_two = np.array([True, True, False])
    gate = fit_gate(examples, [only_two, ALL], seed=0)
    assert np.isfinite(gate.bias).all()
    gate = fit_gate(examples, [only_two], seed=0)
    assert gate.bias[2] == -np.inf and set(gate.choose(examples.embeddings)) == {0, 1}


def test_weights_of_examples_count() -> None:
    """Without information, the candidate that is right on what counts is chosen."""
    examples = made_up(noise=True)
    weights = np.where(examples.scores[2] > 0, 50.0, 1.0)
    gate = fit(Examples(np.zeros_like(examples.embeddings), examples.scores, weights / weights.sum()))
    assert set(gate.choose(examples.embeddings * 0)) == {2}


def test_a_constant_gate_and_routed_scores() -> None:
    gate = always(1, Gate(np.ones((3, 2)), np.zeros(3)))
    assert list(gate.choose(np.random.default_rng(0).normal(size=(4, 2)))) == [1] * 4
    assert list(routed(np.array([[1, 2, 3], [4, 5, 6]]), np.array([1, 0, 1]))) == [4, 2, 6]


def test_too_few_examples_are_refused() -> None:
    require_gate(20)
    with pytest.raises(UserError, match="needs at least 20; there are 19: add examples to utility.data"):
        require_gate(19)
