"""Small stand-ins for the loop: how to drive a search without a model."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from evoswarm.search import SEARCHES, Ask, Search, make_search
from evoswarm.search.rng import stream

SOUPS = ("greedy_soup", "uniform_soup")
"""They end by themselves and draw nothing."""
CONFIGS = {name: search.config_class for name, search in SEARCHES.items() if name not in SOUPS}

SAMPLING = ("random_search", "cma_es", "evolmerge", "lorahub")
"""Those whose generation 0 is the experts alone, however many."""

Utility = Callable[[Ask], list[float | None]]


def search_of(kind: str, *, experts: int = 4, seed: int = 7, layers: int = 1, **settings) -> Search:
    if kind == "bayes":  # by default it ends by itself
        settings = {"min_gain": 0, "max_evaluations": None} | settings
    if kind == "evogm":  # training takes a second
        settings = {"epochs": 2} | settings
    return make_search(
        SEARCHES[kind].config_class(**settings), experts=[f"e{i}" for i in range(experts)], seed=seed, layers=layers
    )


def bowl(ask: Ask, *, experts: int = 4) -> list[float | None]:
    """A quadratic bowl over the experts' coefficients; the best mix is decreasing and has a negative part.

    Noise costs a little, as an unlucky mutation would.
    """
    target = np.linspace(1.0, -0.5, experts)
    target = target / target.sum()
    noise = (ask.rows[:, experts:] ** 2).sum(axis=1)
    return list(1.0 - ((ask.rows[:, :experts] - target) ** 2).sum(axis=1) - 0.01 * noise)


def flaky(ask: Ask) -> list[float | None]:
    """The bowl, where about every fifth evaluation fails (no expert does)."""
    draws = [stream(0, "flaky " + ask.phase, ask.generation, i).random() for i in ask.particles]
    return [None if ask.phase != "experts" and r < 0.2 else u for r, u in zip(draws, bowl(ask), strict=True)]


def run_generation(search: Search, utility: Utility) -> list[Ask]:
    """One whole generation; returns its asks."""
    asks = []
    while not asks or not search.finished_generation:
        asks.append(search.ask())
        search.tell(utility(asks[-1]))
    return asks


def run(search: Search, utility: Utility) -> list[Ask]:
    """Until the search says stop."""
    asks = []
    while search.stop_reason is None:
        asks += run_generation(search, utility)
    return asks


def rebase_if_due(search: Search) -> None:
    plan = search.rebase_plan()
    if plan is not None:
        search.rebase([f"saved/{search.generation}-{k}" for k in range(len(plan))])


def saved(search: Search) -> tuple[dict[str, np.ndarray], dict]:
    """A checkpoint as it comes back from disk."""
    return search.arrays(), json.loads(json.dumps(search.scalars()))


def same_asks(first: list[Ask], second: list[Ask]) -> bool:
    def key(ask: Ask) -> tuple:
        return ask.generation, ask.phase, ask.particles, ask.rows.shape, ask.rows.tobytes()

    return [key(a) for a in first] == [key(a) for a in second]
