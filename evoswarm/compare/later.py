"""The units of a comparison that build on the results of its searches: those on the next base model."""

from __future__ import annotations

from collections.abc import Sequence

from evoswarm.compare.following import next_run, winner_run
from evoswarm.compare.methods import all_methods
from evoswarm.compare.units import Result, Unit, local, searches_in
from evoswarm.config.compare import CompareConfig
from evoswarm.errors import UserError


def next_units(config: CompareConfig, methods: Sequence[str]) -> list[Unit]:
    """The units of the next base model and the ported experts."""
    fixed = tuple(name for name in methods if all_methods()[name].following and not all_methods()[name].seeded)
    return [
        Unit(
            name,
            local(next_run(config, run)),
            config.comparison,
            fixed,
            seeds,
            own_data=target.own_data,
            title="next base",
        )
        for name, target in config.targets.items()
        for seeds, run in target.groups
        if fixed
    ]


def winner_unit(config: CompareConfig, target: str, seed: int, results: Sequence[Result]) -> Unit:
    """The unit of the ported winner: of the search that is best on validation with this seed.

    Raises:
        UserError: no search has a result, or its winner cannot be ported.
    """
    of = [result for result in results if (result["target"], result["seed"]) == (target, seed)]
    searches = [result for result in of if all_methods()[result["method"]].portable]
    if not searches:
        raise UserError("no search with this seed has a result")
    best = max(searches, key=lambda result: float(result["validation"]))
    run, comparison = config.targets[target].runs[seed], config.comparison
    folder = searches_in(run.run_dir / target, comparison) / f"{best['method']}-{seed}"
    after, spent = winner_run(config, run, folder), (best["evaluations"], best["seconds"])
    return Unit(target, local(after), comparison, ("ported_winner",), (seed,), title="ported winner", spent=spent)
