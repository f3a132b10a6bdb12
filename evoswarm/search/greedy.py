"""The rule of the greedy soup."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from evoswarm.search.state import FAILED


def ranked(utilities: np.ndarray) -> np.ndarray:
    """Indices of the successful experts by utility, best first; ties are in pool order."""
    order = np.argsort(-utilities, kind="stable")
    return np.asarray(order[utilities[order] != FAILED])


def greedy_soup(utilities: np.ndarray) -> Generator[np.ndarray, float, np.ndarray]:
    """Yields each mean [n] to measure and receives its utility; returns the soup [n].

    The soup starts as the best expert. Each other expert, best first, is added to the mean if the utility does not get
    worse.

    Source: Wortsman et al. 2022, Model soups (arXiv 2203.05482), recipe 1.

    Args:
        utilities: of the experts [n]; -inf for failed ones.
    """
    order = ranked(utilities)
    soup = np.zeros(len(utilities))
    soup[order[0]] = 1.0
    best = utilities[order[0]]
    for expert in order[1:]:
        more = (soup > 0).astype(float)
        more[expert] = 1.0
        more /= more.sum()
        utility = yield more
        if utility >= best:
            soup, best = more, utility
    return soup
