"""How next-token scores are combined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.rules import TINY, combined, mix, mixed

A, B = (torch.tensor([[row]]).log() for row in ([0.5, 0.3, 0.2], [0.1, 0.1, 0.8]))
LARGE, SMALL, ONE, OTHER = map(Member, ("large", "small", "one", "other"))


def chances(rule, logits, coefficients):
    return combined(rule, logits, torch.tensor([coefficients])).softmax(-1)[0, 0].tolist()


def test_probabilities_are_mixed_and_not_their_logarithms() -> None:
    assert chances("mix", [A, B], [0.75, 0.25]) == pytest.approx([0.4, 0.25, 0.35])


def test_a_probability_that_would_be_negative_is_clipped() -> None:
    scores = mix([A, B], torch.tensor([[1.5, -0.5]]))[0, 0]
    assert scores[:2].exp().tolist() == pytest.approx([0.7, 0.4])
    assert float(scores[2]) == pytest.approx(math.log(TINY), rel=1e-6)
    assert mixed(np.array([[0.5, 0.2], [0.1, 0.8]]), np.array([1.5, -0.5])).tolist() == [pytest.approx(0.7), TINY]


def test_without_a_positive_weight_everything_is_clipped_and_nothing_is_nan() -> None:
    for weights in ([0.0, 0.0], [-1.0, -0.5]):
        assert chances("mix", [A, B], weights) == pytest.approx([1 / 3] * 3)


def test_a_very_unlikely_token_keeps_its_probability() -> None:
    rare = torch.tensor([[[0.0, -200.0]]])
    assert combined("mix", [rare, rare], torch.tensor([[0.5, 0.5]])).log_softmax(-1)[0, 0, 1] == pytest.approx(-200)


def test_every_row_of_a_batch_has_its_own_coefficients() -> None:
    both = [torch.cat([one, one]) for one in (A, B)]
    scores = combined("mix", both, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(scores, torch.cat([A, B]))


def test_steering_adds_the_difference_that_tuning_has_made() -> None:
    weights = Combination("steering", LARGE, (ONE,), SMALL).weights([0.5])
    assert weights.tolist() == [1, -0.5, 0.5]
    large, small, one = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[4.0, 0.0]]])
    by_hand = (large + 0.5 * (one - small)).softmax(-1)[0, 0].tolist()
    assert chances("steering", [large, small, one], weights.tolist()) == pytest.approx(by_hand)


def test_one_model_alone_keeps_its_own_logits() -> None:
    logits = torch.tensor([[[3.0, 5.0]]])
    assert combined("mix", [logits], torch.tensor([[0.3]])) is not logits
    assert torch.equal(combined("mix", [logits], torch.tensor([[0.3]])), logits)
    assert torch.equal(combined("steering", [logits], torch.tensor([[1.0]])), logits)
    assert torch.equal(combined("steering", [logits], torch.tensor([[2.0]])), 2 * logits.log_softmax(-1))


def test_rows_after_the_shared_vocabulary_are_left_out() -> None:
    longer = torch.cat([B, torch.full((1, 1, 5), 3.0)], -1)
    assert chances("mix", [A, longer], [0.5, 0.5]) == pytest.approx([0.3, 0.2, 0.5])


def test_of_a_mix_the_reference_counts_only_if_it_is_an_expert() -> None:
    combination = Combination("mix", LARGE, (ONE, LARGE, OTHER))
    assert combination.members == (LARGE, ONE, OTHER)
    assert combination.weights([0.5, 0.2, 0.3]).tolist() == pytest.approx([0.2, 0.5, 0.3])
    assert combination.weights(None).tolist() == [1, 0, 0]


def test_a_small_base_that_is_the_large_one_cancels() -> None:
    combination = Combination("steering", LARGE, (ONE, LARGE), LARGE)
    assert combination.members == (LARGE, ONE)
    assert combination.weights([1.0, 0.7]).tolist() == [0, 1]
    assert combination.weights(None).tolist() == [1, 0]
