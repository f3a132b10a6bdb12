"""Pareto dominance over vectors of objectives [M, K], all maximized. Pure functions.

x dominates y if no objective of x is lower and one is higher. A vector of -inf is a failed evaluation; every
other dominates it.
"""

from __future__ import annotations

import numpy as np


def nondominated(vectors: np.ndarray) -> np.ndarray:
    """Mask [M] of the vectors that no other dominates; of equal ones, the first."""
    import moocore

    return np.asarray(moocore.is_nondominated(vectors, maximise=True)) if len(vectors) else np.zeros(0, dtype=bool)


def ranks(vectors: np.ndarray) -> np.ndarray:
    """Rank [M] of each vector: 0 is not dominated, 1 only by vectors of rank 0, and so on.

    Source: Deb et al. 2002, NSGA-II (IEEE TEC 6:2), fast non-dominated sorting.
    """
    import moocore

    return np.asarray(moocore.pareto_rank(vectors, maximise=True)) if len(vectors) else np.zeros(0, dtype=np.int32)


def dominates(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mask [M]: whether x [M, K] dominates y [M, K], line by line."""
    return np.asarray((x >= y).all(axis=-1) & (x > y).any(axis=-1))


def crowding(vectors: np.ndarray) -> np.ndarray:
    """Crowding distance [M] within one front of finite vectors: larger is lonelier.

    Sum over objectives of the gap between the two neighbors, as a share of the front's range. The ends of each
    objective have infinity; objectives without a range do not count.
    Source: Deb et al. 2002, NSGA-II, crowding-distance-assignment.
    """
    distance = np.zeros(len(vectors))
    for values in vectors.T:
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]] if len(values) else 0.0
        if span > 0:
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
            distance[order[[0, -1]]] = np.inf
    return distance


def by_crowding(vectors: np.ndarray) -> np.ndarray:
    """Indices [M] from the best to the worst: by rank, then by crowding distance within the rank, then by index."""
    level, lonely = ranks(vectors), np.zeros(len(vectors))
    for rank in np.unique(level):
        lonely[level == rank] = crowding(vectors[level == rank])
    return np.lexsort((np.arange(len(vectors)), -lonely, level))


def thinned(vectors: np.ndarray, count: int, *, keep: int) -> np.ndarray:
    """Indices of at most `count` vectors of a front, spread over it, in order: the most crowded is dropped repeatedly.

    `keep` always stays.
    Source: Nebro et al. 2009, SMPSO (IEEE MCDM), the archive of leaders.
    """
    index = np.arange(len(vectors))
    while len(index) > count:
        lonely = crowding(vectors[index])
        lonely[index == keep] = np.inf
        last = np.flatnonzero(lonely == lonely.min())[-1]
        index = np.delete(index, last if index[last] != keep else last - 1)
    return index


def hypervolume(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Volume that is dominated by the vectors [M, K] and above the reference point [K].

    Source: Zitzler and Thiele 1998 (PPSN V); Fonseca et al. 2006 for the algorithm of moocore.
    """
    import moocore

    return float(moocore.hypervolume(vectors, ref=reference, maximise=True)) if len(vectors) else 0.0


def to_ideal(vectors: np.ndarray) -> np.ndarray:
    """Distance [M] of a front's vectors to its ideal point, with every objective scaled to the front's range.

    The ideal point has the highest value of each objective; the nearest vector is the knee.
    Source: Zeleny 1973, compromise programming.
    """
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray(np.linalg.norm((high - vectors) / span, axis=1))
