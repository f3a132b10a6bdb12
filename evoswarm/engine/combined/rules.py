"""How the next-token scores of several models are combined. Functions without state.

Sources: mixed distributions as in Model Swarms (2410.11163, token swarms); steering is proxy-tuning (2401.08565, eq. 1)
and emulated fine-tuning (2310.12962, eq. 5), with one coefficient for each expert; value models
as in value-augmented sampling (2405.06639, greedy form).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

RuleName = Literal["mix", "steering"]
TINY = 1e-38
"""What a probability that is not positive is clipped to."""


def option_probabilities(logprobs: Sequence[float]) -> np.ndarray:
    """P(option) [options]: the softmax of the options' log-probabilities. Empty if there are none."""
    values = np.exp(np.array(logprobs) - max(logprobs, default=0.0))
    return values / values.sum()


def mixed(probabilities: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """sum_i c_i P_i, clipped at `TINY`.

    Args:
        probabilities: [N, ...] of each model.
        coefficients: [N], of any sign.

    Returns:
        [...], not normalized.
    """
    return np.maximum(np.tensordot(coefficients, probabilities, axes=1), TINY)


def mix(logprobs: Sequence[torch.Tensor], coefficients: torch.Tensor) -> torch.Tensor:
    """log sum_i c_i p_i, clipped at `TINY` where it is not positive; small probabilities are not rounded to zero.

    Args:
        logprobs: [B, T, V] of each model.
        coefficients: [B, N] or [1, N].

    Returns:
        [B, T, V], not normalized.
    """
    gain, loss = _total(logprobs, coefficients.clamp(min=0)), _total(logprobs, (-coefficients).clamp(min=0))
    left = -(loss - gain).clamp(max=0).expm1()  # e^gain - e^loss = e^gain left
    return (gain + left.log()).where(loss < gain, math.log(TINY))


def _total(logprobs: Sequence[torch.Tensor], coefficients: torch.Tensor) -> torch.Tensor:
    """log sum_i c_i p_i of coefficients that are not negative."""
    terms = (one + c.log()[:, None, None] for one, c in zip(logprobs, coefficients.T, strict=True))
    total = next(terms)
    for term in terms:
        total = total.logaddexp(term)
    return total


def steer(logprobs: Sequence[torch.Tensor], coefficients: torch.Tensor) -> torch.Tensor:
    """sum_i c_i log p_i.

    Args:
        logprobs: [B, T, V] of each model.
        coefficients: [B, N] or [1, N]; see `Combination.weights`.

    Returns:
        [B, T, V], not normalized.
    """
    terms = [c[:, None, None] * one for one, c in zip(logprobs, coefficients.T, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def valued(logprobs: torch.Tensor, candidates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """log p + value of each token; a token that is no candidate counts as the worst one, and so stays below them all.

    Args:
        logprobs: [B, T, V].
        candidates: [B, T, K] the K likeliest tokens.
        values: [B, T, K] of the text with each of them, with coefficients.

    Returns:
        [B, T, V], not normalized.
    """
    worst = values.amin(-1, keepdim=True).expand(logprobs.shape)
    return logprobs + worst.scatter(-1, candidates, values)


def combined(rule: RuleName, logits: Sequence[torch.Tensor], coefficients: torch.Tensor) -> torch.Tensor:
    """Scores whose softmax is the combined distribution.

    Models may have rows after the end of the vocabulary that they share: they are left out.

    Args:
        rule: how to combine.
        logits: [B, T, V_i] of each model.
        coefficients: [B, N] or [1, N].

    Returns:
        [B, T, V]. With one model and a positive coefficient (of steering: 1), its own logits.
    """
    rows = min(one.shape[-1] for one in logits)
    parts = [one[..., :rows].float() for one in logits]
    if len(parts) == 1 and bool((coefficients == 1).all() if rule == "steering" else (coefficients > 0).all()):
        return parts[0]
    logprobs = [part.log_softmax(-1) for part in parts]
    return mix(logprobs, coefficients) if rule == "mix" else steer(logprobs, coefficients)
