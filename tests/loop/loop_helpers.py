"""Runs that are stopped and resumed."""

from __future__ import annotations

from typing import Any

import pytest

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.errors import Stopped

SOUPS = ("greedy_soup", "uniform_soup")
ALGORITHMS = (
    "model_swarms",
    "genome",
    "genome_plus",
    "random_search",
    "cma_es",
    "evolmerge",
    "lorahub",
    "bayes",
    "pso_merging",
    "m2n2",
    "evogm",
    *SOUPS,
)


def stopping_after(evaluations: int) -> Callbacks:
    """Callbacks that stop a run after so many evaluations."""
    seen: list[Event] = []

    def notify(event: Event) -> None:
        if event["kind"] == "progress":
            seen.append(event)

    return Callbacks(notify=notify, stop=lambda: len(seen) >= evaluations)


def run_in_pieces(config: RunConfig, piece: int) -> dict[str, Any]:
    """Run, stop and resume until the end; each session gets a little further than what is on record."""
    for session in range(100):
        try:
            return evoswarm.run(config, callbacks=stopping_after(piece + 3 * session))
        except Stopped:
            continue
    pytest.fail("the run never came to its end")
