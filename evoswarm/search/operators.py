"""The operators of the searches, as free functions over coefficient rows. numpy only.

Shape legend: P particles, J basis vectors. A utility of -inf means that the evaluation failed.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from evoswarm.search.state import FAILED, Measured


def mix(x1: np.ndarray, x2: np.ndarray, w: float) -> np.ndarray:
    """w x1 + (1 - w) x2. Affine: the row sum of the parents is kept."""
    return w * x1 + (1 - w) * x2


def first_experts(utilities: np.ndarray, places: int) -> np.ndarray:
    """Indices of the experts that enter the first population: the successful ones in pool order.

    If there are more than `places`: the best, in the order of their utility; ties by index.
    """
    good = np.flatnonzero(utilities != FAILED)
    return good if len(good) <= places else top(utilities, places)


def top(utilities: np.ndarray, count: int) -> np.ndarray:
    """Indices of the best `count` successful entries, best first; ties: the lower index first."""
    order = np.argsort(-utilities, kind="stable")
    return order[: min(count, int((utilities != FAILED).sum()))]


def elite_count(rate: float, size: int) -> int:
    """ceil(rate * size), safe against 0.07 * 100 = 7.000000000000001."""
    return ceil(rate * size - 1e-9)


def pull(
    x: np.ndarray,
    *,
    v: np.ndarray,
    p: np.ndarray,
    g: np.ndarray,
    w: np.ndarray,
    has_best: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """New velocities [P, J]: [r_v f_v v + r_p f_p (p - x) + r_g f_g (g - x) + r_w f_w (x - w)] / C, C = sum of r f.

    Positions x, velocities v and personal bests p are [P, J], global best g [J] or one for each particle
    [P, J], global worst w [J]. `weights` [P, 4] is r f of inertia, cognitive, social and repel. Without a personal best
    (mask `has_best` [P]) the cognitive term is 0 and is not in C. If C is 0, the velocity is 0.
    Source: Model Swarms (arXiv 2410.11163), equation 1; GENOME (arXiv 2503.01155), succession.
    """
    used = weights.copy()
    used[~has_best, 1] = 0
    total = used.sum(axis=1, keepdims=True)
    share = np.divide(used, total, out=np.zeros_like(used), where=total > 0)
    a_v, a_p, a_g, a_w = (share[:, k : k + 1] for k in range(4))
    return a_v * v + a_p * (p - x) + a_g * (g - x) + a_w * (x - w)


def improve(bests: Measured, at: np.ndarray, fresh: Measured) -> np.ndarray:
    """Update personal bests by fresh measurements [M] of particles `at` [M] (strict >). Returns those that improved."""
    won = fresh.utilities > bests.utilities[at]
    bests.put(at[won], fresh.take(won))
    return at[won]


def roulette_weights(utilities: np.ndarray) -> np.ndarray:
    """Weights [P] in 0..1 for drawing and mixing by utility.

    If any utility is negative, the smallest is subtracted first. If then all are 0, all weights are equal. Failed
    entries get 0. The largest weight is 1, so that huge utilities do not overflow.
    """
    good = utilities != FAILED
    weights = np.zeros(len(utilities))
    if not good.any():
        return weights
    scale = np.abs(utilities[good]).max()
    shares = utilities[good] / scale if scale > 0 else np.zeros(int(good.sum()))
    shares = shares - min(shares.min(), 0.0)
    weights[good] = shares / shares.max() if shares.max() > 0 else 1.0
    return weights


def roulette(rng: np.random.Generator, weights: np.ndarray, good: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` distinct indices, with chances proportional to the weights [P].

    If fewer than `count` weights are positive, all of these are chosen, and the rest is drawn evenly among the good
    entries (mask [P]) of weight 0. A failed entry (not good) is never drawn.
    """
    chances = weights / max(weights.sum(), np.finfo(float).tiny)
    positive = np.flatnonzero(chances > 0)
    if len(positive) >= count > 0:
        return rng.choice(len(weights), count, replace=False, p=chances)
    positive = positive[:count]
    zero = np.flatnonzero(good & (chances == 0))
    return np.concatenate([positive, rng.choice(zero, count - len(positive), replace=False)])


def cross(x1: np.ndarray, x2: np.ndarray, f1: float, f2: float) -> np.ndarray:
    """(f1 x1 + f2 x2) / (f1 + f2); the midpoint if a weight is 0, since a copy of one parent would be useless.

    Source: GENOME (arXiv 2503.01155), crossover.
    """
    return mix(x1, x2, f1 / (f1 + f2) if f1 > 0 and f2 > 0 else 0.5)


def select_by_tournament(
    rng: np.random.Generator, utilities: np.ndarray, *, places: int, elites: int, size: int
) -> np.ndarray:
    """Survivors: the elites, best first, then winners of tournaments without replacement, in the order they won.

    Failed entries never survive. If at most `places` succeeded, all of them stay, in their order, and nothing is drawn.
    A tournament draws `size` of those not yet chosen; its best survives (ties: the lower index).
    """
    good = np.flatnonzero(utilities != FAILED)
    if len(good) <= places:
        return good
    chosen = list(top(utilities, min(elites, places)))
    rest = np.setdiff1d(good, chosen)
    while len(chosen) < places:
        drawn = np.sort(rng.choice(len(rest), min(size, len(rest)), replace=False))
        winner = drawn[utilities[rest[drawn]].argmax()]
        chosen.append(rest[winner])
        rest = np.delete(rest, winner)
    return np.array(chosen, dtype=np.int64)


def select_by_roulette(rng: np.random.Generator, utilities: np.ndarray, *, places: int, elites: int) -> np.ndarray:
    """Survivors: the elites, best first, then others by roulette without replacement, in the order they were drawn.

    Failed entries never survive. If at most `places` succeeded, all of them stay, in their order, and nothing is drawn.
    The roulette weights are those of the entries that are not elites.
    """
    good = np.flatnonzero(utilities != FAILED)
    if len(good) <= places:
        return good
    chosen = top(utilities, min(elites, places))
    rest = np.setdiff1d(good, chosen)
    every = np.ones(len(rest), dtype=bool)
    drawn = roulette(rng, roulette_weights(utilities[rest]), every, places - len(chosen))
    return np.concatenate([chosen, rest[drawn]])


def distinct_top(entries: Measured, count: int) -> Measured:
    """The best `count` successful entries with different rows, best first; ties: earlier generation, lower particle."""
    order = np.lexsort((entries.particles, entries.generations, -entries.utilities))
    seen: set[bytes] = set()
    picked: list[int] = []
    for i in order[entries.succeeded[order]]:
        if len(picked) >= count:
            break
        key = (entries.rows[i] + 0.0).tobytes()
        if key not in seen:
            seen.add(key)
            picked.append(int(i))
    return entries.take(np.array(picked, dtype=np.int64))
