"""The possible gain on the toy targets: the base, the best expert, and soups that need no search."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common import show
from evoswarm.backend import Job
from evoswarm.backend.local import LocalBackend
from evoswarm.config.load import parse_config
from evoswarm.rows import ExpertVector, Row
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.toy.targets import TARGETS
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool


def main() -> None:
    """Measure every target on its test split; validation selects the best expert."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    show("test utility", [headroom(target) for target in TARGETS])


def headroom(target: str) -> dict[str, Any]:
    """One row of the table. The last soup mixes the experts for the target's skills."""
    config = parse_config(target_config(target, algorithm="model_swarms"), root=world())
    pool = open_pool(config.pool, model=config.model)
    backend = LocalBackend(config, pool=pool, utility=make_utility(config.utility, root=config.root))
    validation = [Job(name, Row.one(name)) for name in pool.names]
    best = max(backend.evaluate(validation), key=lambda e: e.utility or 0).key
    rows = {"base": None, "best expert": Row.one(str(best)), "uniform soup": soup(list(pool.names))}
    rows["soup of its experts"] = soup(list(TARGETS[target].shares))
    jobs = [Job(("final", name), row, "test") for name, row in rows.items()]
    utilities = {e.key: e.utility for e in backend.evaluate(jobs)}
    return {"target": target, "expert": best} | {name: utilities["final", name] for name in rows}


def soup(names: list[str]) -> Row:
    """Equal coefficients that sum to 1."""
    return Row(tuple((ExpertVector(name), 1 / len(names)) for name in names))


if __name__ == "__main__":
    main()
