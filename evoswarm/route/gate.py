"""The gate: a linear prediction of each candidate's score from the embedding of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evoswarm.errors import UserError, not_installed

FEWEST = 20
"""Examples that a gate needs."""
FOLDS = 5
PENALTIES = 10.0 ** np.arange(-3, 2.5, 0.5)
"""Ridge penalties per dimension of the embedding."""


@dataclass(frozen=True, eq=False)
class Gate:
    """Predicts scores as weight [N, D] @ embedding [D] + bias [N]. A candidate with the bias -inf never answers."""

    weight: np.ndarray
    bias: np.ndarray

    def choose(self, embeddings: np.ndarray) -> np.ndarray:
        """The candidate [B] with the highest prediction for each embedding [B, D]. Of equal ones, the first."""
        chosen: np.ndarray = (embeddings.astype(np.float64) @ self.weight.T + self.bias).argmax(axis=1)
        return chosen

    def among(self, group: np.ndarray) -> Gate:
        """The gate for some of the candidates, a mask [N]."""
        return Gate(self.weight, np.where(group, self.bias, -np.inf))


@dataclass(frozen=True, eq=False)
class Examples:
    """What a gate learns from.

    Attributes:
        embeddings: [E, D].
        scores: [N, E] of the candidates, best first.
        weights: [E] share of each example in the utility.
    """

    embeddings: np.ndarray
    scores: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.embeddings)

    def of(self, indices: np.ndarray) -> Examples:
        """Some of the examples."""
        return Examples(self.embeddings[indices], self.scores[:, indices], self.weights[indices])

    def value(self, choice: np.ndarray) -> float:
        """The weighted mean score of chosen candidates [E]."""
        return float(routed(self.scores, choice) @ self.weights)


def routed(scores: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The scores [E] of the chosen candidates [E], from those of all [N, E]."""
    found: np.ndarray = scores[choice, np.arange(scores.shape[1])]
    return found


def always(candidate: int, like: Gate) -> Gate:
    """A gate that ignores the prompt."""
    return Gate(np.zeros_like(like.weight), np.where(np.arange(len(like.bias)) == candidate, 0.0, -np.inf))


def fit_gate(examples: Examples, groups: Sequence[np.ndarray], *, seed: int) -> Gate:
    """The gate with the penalty, and over the group of candidates, that are best in cross-validation.

    Ridge regression of the scores on standardized embeddings. Of equal choices, the one with the largest penalty.

    Args:
        examples: to learn from.
        groups: masks [N] of candidates.
        seed: of the folds.
    """
    chosen = np.zeros((len(PENALTIES), len(groups), len(examples)), int)
    for rest, held_out in folds(len(examples), seed):
        for k, gate in enumerate(_path(examples.of(rest))):
            for g, group in enumerate(groups):
                chosen[k, g, held_out] = gate.among(group).choose(examples.embeddings[held_out])
    values = {(k, g): examples.value(chosen[k, g]) for k in range(len(PENALTIES)) for g in range(len(groups))}
    k, g = max(values, key=lambda at: (values[at], at[0]))
    return _path(examples)[k].among(groups[g])


def _path(examples: Examples) -> list[Gate]:
    """The gate of each penalty; one decomposition serves all of them."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    shares = examples.weights * len(examples) / examples.weights.sum()
    scaler = StandardScaler().fit(examples.embeddings.astype(np.float64), sample_weight=shares)
    inputs = scaler.transform(examples.embeddings.astype(np.float64))
    count, dimensions = len(examples.scores), inputs.shape[1]
    model = Ridge(alpha=np.repeat(PENALTIES * dimensions, count), solver="svd")
    model.fit(inputs, np.tile(examples.scores.T, len(PENALTIES)), sample_weight=shares)
    weights = model.coef_.reshape(len(PENALTIES), count, dimensions) / scaler.scale_
    biases = model.intercept_.reshape(len(PENALTIES), count) - weights @ scaler.mean_
    return [Gate(weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def out_of_fold(examples: Examples, fit: Callable[[Examples], Gate], *, seed: int) -> np.ndarray:
    """The candidate [E] for each example, chosen by a gate that has not seen it."""
    choice = np.zeros(len(examples), int)
    for rest, held_out in folds(len(examples), seed):
        choice[held_out] = fit(examples.of(rest)).choose(examples.embeddings[held_out])
    return choice


def folds(size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random parts of the examples: the indices of the others, and those of each part."""
    parts = np.array_split(np.random.default_rng(seed).permutation(size), FOLDS)
    for k, part in enumerate(parts):
        yield np.concatenate([*parts[:k], *parts[k + 1 :]]), part


def require_gate(examples: int) -> None:
    """Check that a gate can be fitted.

    Raises:
        UserError: there are too few examples, or scikit-learn is not installed.
    """
    if examples < FEWEST:
        raise UserError(
            f"a router learns from the validation examples and needs at least {FEWEST}; there are {examples}: add "
            "examples to utility.data, or raise utility.data.limit"
        )
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        raise not_installed("a router", "scikit-learn", extra="route") from None
