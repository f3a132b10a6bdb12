"""The trials of a tuning. All are drawn and checked before the first one starts. Imports no Ray."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from evoswarm.config import RunConfig
from evoswarm.config.loggers import Wandb
from evoswarm.config.run import LocalBackend
from evoswarm.config.tune import FIXED, Domain, TuneConfig
from evoswarm.errors import UserError
from evoswarm.loop.inputs import read_inputs
from evoswarm.utility import make_utility

ATTEMPTS = 20
"""Draws per trial. A small space may have fewer different values than trials."""
Values = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        values: its values by dotted key.
        wanted: the config with these values, to run outside the tuning.
        run: the same as a run in the tuning's folder, in one process and without the test split.
    """

    number: int
    values: Values
    wanted: RunConfig
    run: RunConfig


def make_trials(config: TuneConfig) -> list[Trial]:
    """Draw the trials of a tuning; the seed of the config determines them.

    Raises:
        UserError: the config refuses a key, value or combination, or pool or data cannot be used.
    """
    _check(config)
    trials = []
    for number, values in enumerate(draw(config.space, trials=config.tuning.trials, seed=config.run.seed)):
        wanted = config.with_values(values, f"tune.space, trial {number} ({described(values)})")
        trials.append(Trial(number, values, wanted, _as_trial(wanted, config.run, number)))
    seen: set[str] = set()
    for trial in trials:
        asked = json.dumps(trial.run.model_dump(mode="json", include={"model", "pool", "utility", "search"}))
        if asked not in seen:
            read_inputs(trial.run, check=not seen)
            make_utility(trial.wanted.utility, root=trial.wanted.root)
        seen.add(asked)
    return trials


def draw(space: dict[str, Domain], *, trials: int, seed: int) -> list[Values]:
    """Different sets of values: `trials` draws for each combination of the grids, fewer if the space is small."""
    rng = np.random.default_rng(seed)
    grids = [[(key, value) for value in domain.grid] for key, domain in space.items() if domain.grid]
    found: dict[str, Values] = {}
    for combination in itertools.product(*grids):
        drawn: dict[str, Values] = {}
        for _ in range(ATTEMPTS * trials):
            fixed = dict(combination)
            values = {k: fixed[k] if k in fixed else _one(domain, rng) for k, domain in space.items()}
            drawn.setdefault(json.dumps(values), values)
            if len(drawn) == trials:
                break
        found |= drawn
    return list(found.values())


def _one(domain: Domain, rng: np.random.Generator) -> Any:
    if domain.choice is not None:
        return domain.choice[int(rng.integers(len(domain.choice)))]
    if domain.randint is not None:
        return int(rng.integers(domain.randint[0], domain.randint[1] + 1))
    if domain.uniform is not None:
        return float(rng.uniform(*domain.uniform))
    assert domain.loguniform is not None
    low, high = domain.loguniform
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def described(values: Values) -> str:
    """Values as text."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def _check(config: TuneConfig) -> None:
    """Check every key with each of its extreme values, and the first value of all other keys."""
    space = config.space
    first = {key: domain.extremes[0] for key, domain in space.items()}
    for key, domain in space.items():
        if key.partition(".")[0] in FIXED:
            raise UserError(f"{config.source}: tune.space.{key}: must be the same for all trials; set it in the config")
        for value in domain.extremes:
            config.with_values(first | {key: value}, f"tune.space.{key}")


def _as_trial(wanted: RunConfig, of: RunConfig, number: int) -> RunConfig:
    loggers = [
        logger.with_(group=of.name) if isinstance(logger, Wandb) and logger.group is None else logger
        for logger in wanted.loggers
    ]
    return wanted.with_(
        name=f"{number:04}",
        output=of.run_dir / "trials",
        references=False,
        backend=LocalBackend(),
        loggers=loggers,
        utility=wanted.utility.without_test(),
    )
