"""Scales on which the utilities of several tasks can be combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evoswarm.errors import UserError


class Scale(NamedTuple):
    """The utilities that become 0 and 1."""

    low: float = 0.0
    high: float = 1.0

    def of(self, utility: float) -> float:
        """A utility on this scale; values outside of 0 to 1 are possible."""
        return (utility - self.low) / (self.high - self.low)


def by_base(base: Mapping[str, float]) -> dict[str, Scale]:
    """The base model has 1.

    Raises:
        UserError: the base has 0 or less on a task.
    """
    for task, utility in base.items():
        if utility <= 0:
            raise UserError(
                f"utility.normalize: the base model has {utility:g} on task {task}, and base needs more than 0; give "
                "ranges, or use experts"
            )
    return {task: Scale(0.0, utility) for task, utility in base.items()}


def by_experts(base: Mapping[str, float], experts: Sequence[Mapping[str, float]]) -> dict[str, Scale]:
    """The base model has 0, and the best expert of each task 1.

    Raises:
        UserError: no expert is better than the base on a task.
    """
    best = {task: max(of[task] for of in experts) for task in base}
    for task, utility in base.items():
        if best[task] <= utility:
            raise UserError(
                f"utility.normalize: no expert is better than the base model on task {task} ({best[task]:g} and "
                f"{utility:g}), which experts needs; give ranges, or use none"
            )
    return {task: Scale(utility, best[task]) for task, utility in base.items()}
