"""Rewards whose scale is measured on the base model's answers, once, before anything else is scored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.utility import UtilityConfig
from evoswarm.utility.reward import Reward
from evoswarm.weights.expert import read_json

MeasureBase = Callable[[RunConfig], Evaluation]
"""The evaluation of a config's base model on the validation split."""


def with_normalization(config: RunConfig, directory: RunDirectory | None, measure: MeasureBase) -> RunConfig:
    """The config with constants in place of `normalize: measured`.

    They are part of the definition of a result, so they are recorded in the directory, and read there the next time.

    Args:
        config: of a run.
        directory: where constants are recorded; None: nowhere.
        measure: measures the base model.

    Raises:
        UserError: the base model's answers have no scores, or all the same one.
    """
    record: dict[str, Any] = {}
    if directory is not None and directory.normalization.exists():
        record = read_json(directory.normalization)

    def settled(path: str, reward: Reward) -> Reward:
        if (raw := reward.to_measure) is None:
            return reward
        if path not in record:
            evaluation = measure(config.with_(utility=raw))
            if evaluation.error is not None:
                raise UserError(f"{path}: the base model's answers cannot be scored: {evaluation.error}")
            record[path] = reward.constants(evaluation.statistics)
            if directory is not None:
                directory.write_json(directory.normalization.name, record)
        return reward.with_constants(record[path])

    utility = _changed(config.utility, settled, "utility")
    return config if utility is config.utility else config.with_(utility=utility)


def measures_base(config: RunConfig) -> bool:
    """Whether a reward of the utility has `normalize: measured`."""
    found: list[Reward] = []

    def note(path: str, reward: Reward) -> Reward:
        found.append(reward)
        return reward

    _changed(config.utility, note, "utility")
    return any(reward.to_measure is not None for reward in found)


def base_on(backend: Backend) -> Evaluation:
    """The evaluation of the base model on a backend, which is closed then."""
    with closing(backend):
        (evaluation,) = backend.evaluate([Job("base", None, raw=True)])
        return evaluation


def _changed(value: Any, change: Callable[[str, Reward], Reward], path: str) -> Any:
    """A utility with all rewards in it changed, which are told their paths; itself if nothing changes."""
    if isinstance(value, Reward):
        return change(path, value)
    if isinstance(value, UtilityConfig):
        before: dict[str, Any] = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        before = value
    else:
        return value
    after = {name: _changed(part, change, f"{path}.{name}") for name, part in before.items()}
    different = {name: part for name, part in after.items() if part is not before[name]}
    if not different:
        return value
    return value.with_(**different) if isinstance(value, UtilityConfig) else after
