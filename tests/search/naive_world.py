"""What the naive reference runs on: four experts of three tensors, deterministic noise, utilities, failures."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from naive_reference import Weights

from evoswarm.rows import NoiseVector

SHAPES = {"attention": (3, 5), "gate": (7,), "down": (2, 3, 3)}
NAMES = ["code", "math", "chat", "law"]

UtilityShape = Callable[[float], float]
Fails = Callable[[str, int, int], bool]


def tensors(key: str, scale: float = 1.0) -> Weights:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


EXPERTS = {name: tensors(name) for name in NAMES}
TARGET = {
    name: 0.7 * EXPERTS["code"][name] + 0.5 * EXPERTS["law"][name] - 0.2 * EXPERTS["chat"][name] + 0.2 * off
    for name, off in tensors("target").items()
}


@cache
def noise(vector: NoiseVector) -> Weights:
    """m * e per scalar, as a function of the vector's fields alone."""
    rng = np.random.default_rng(zlib.crc32(repr(vector).encode()))
    mask = {name: rng.random(shape) < vector.gene_rate for name, shape in SHAPES.items()}
    return {
        name: (mask[name] * rng.normal(0, vector.sigma, shape)).astype(np.float32) for name, shape in SHAPES.items()
    }


def flat(weights: Weights) -> np.ndarray:
    """All tensors of a particle as one fp64 vector [D], to compare them with the search's."""
    return np.concatenate([weights[name].ravel() for name in SHAPES]).astype(np.float64)


FLAT_TARGET = flat(TARGET)


def closeness(weights: np.ndarray) -> float:
    """Minus the mean squared distance of flat weights [D] to the target."""
    return -float(np.mean((weights - FLAT_TARGET) ** 2))


UTILITIES: dict[str, UtilityShape] = {
    "negative": lambda raw: round(raw, 4),
    "accuracy": lambda raw: round(float(np.exp(raw)), 4),
    "plateaus": lambda raw: np.floor(6 * float(np.exp(round(raw, 4)))) / 6,
    "negative_plateaus": lambda raw: np.floor(3 * round(raw, 4)) / 3,
    "all_zero": lambda raw: 0.0,
}


def nothing_fails(phase: str, generation: int, position: int) -> bool:
    return False


def some_fail(phase: str, generation: int, position: int) -> bool:
    """One expert, some first particles, later every fifth evaluation; whole generation 7."""
    if phase == "experts":
        return position == 1
    return generation == 7 or (3 * generation + 2 * position) % 5 == 1


def only_experts_succeed_at_first(phase: str, generation: int, position: int) -> bool:
    return phase != "experts" and generation < 4
