"""The settings of several tasks as one utility."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from evoswarm.errors import did_you_mean
from evoswarm.registry import by_type
from evoswarm.section import NonNegative
from evoswarm.utility.config import UtilityConfig
from evoswarm.utility.tasks import TASKS


class MultiTask(UtilityConfig):
    """Several tasks as one utility (MS, section 3.2; GENOME, weighted sum)."""

    type: Literal["multi_task"] = "multi_task"
    separate: ClassVar[bool] = True
    tasks: dict[str, Annotated[UtilityConfig, by_type(TASKS, lambda entry: entry.config_class)]]
    """The tasks by name."""
    evolve: list[str] | None = None
    """The tasks that the search maximizes; null: all but that of `select_on`. The others are only reported (GENOME's
    zero-shot protocol): at the end, the base model, every expert and the winner are measured on their test split, or on
    validation if a task has no other."""
    report: bool = True
    """Report the tasks that are not evolved."""
    select_on: str | None = None
    """The task that chooses the winner, such as accuracy after a search by log-likelihood: at the end, the best rows of
    the search are measured on its validation split, and the best of them there wins."""
    candidates: int = Field(10, ge=2)
    """select_on: how many of the best rows are measured."""
    combine: Literal["harmonic_mean", "weighted_sum"] = "harmonic_mean"
    """harmonic_mean (MS) or weighted_sum (GENOME) of the evolved tasks."""
    weights: dict[str, NonNegative] | None = None
    """weighted_sum: the weight of each evolved task, normalized to sum 1; equal by default."""
    normalize: Literal["none", "base", "experts"] | dict[str, tuple[float, float]] = "none"
    """What the tasks' utilities are before they are combined. base: divided by that of the base model. experts: 0 for
    the base model and 1 for the best expert of the task. A mapping {task: [low, high]}: 0 at low and 1 at high; tasks
    that it does not name stay as they are. Base and experts are measured once, at the start of a run."""

    @property
    def parts(self) -> tuple[UtilityConfig, ...]:
        """The tasks."""
        return tuple(self.tasks.values())

    @property
    def unmixable(self) -> str | None:
        """See `UtilityConfig`."""
        found = ((name, task.unmixable) for name, task in self.tasks.items())
        return next((f"task {name}: {why}" for name, why in found if why), None)

    @property
    def evolved(self) -> list[str]:
        """The tasks that the search maximizes, in the order of `tasks`."""
        return [name for name in self.tasks if (name != self.select_on if self.evolve is None else name in self.evolve)]

    @property
    def own_tasks(self) -> dict[str, UtilityConfig]:
        """The tasks, the evolved ones with their penalty."""
        shared = {name for name in self.evolved if self.tasks[name].penalty is None and self.penalty is not None}
        return {name: task.with_(penalty=self.penalty) if name in shared else task for name, task in self.tasks.items()}

    @property
    def choose_from(self) -> int:
        """See `UtilityConfig`."""
        return 0 if self.select_on is None else self.candidates

    def without_test(self) -> Self:
        """The same tasks without their test splits and reports."""
        return self.with_(tasks={name: task.without_test() for name, task in self.tasks.items()}, report=False)

    @model_validator(mode="after")
    def _tasks_are_known(self) -> Self:
        if len(self.tasks) < 2:
            raise ValueError("multi_task needs at least two tasks; use the one task directly")
        self._check_names("evolve", self.evolve or [])
        self._check_names("select_on", [] if self.select_on is None else [self.select_on])
        if not self.evolved:
            raise ValueError("evolve names no task; name those that the search maximizes, or leave it out")
        return self

    @model_validator(mode="after")
    def _tasks_can_be_combined(self) -> Self:
        if self.weights is not None and self.combine != "weighted_sum":
            raise ValueError("weights need combine: weighted_sum")
        if self.weights is not None and set(self.weights) != set(self.evolved):
            raise ValueError(f"weights must name each evolved task once: {', '.join(self.evolved)}")
        if self.weights is not None and sum(self.weights.values()) == 0:
            raise ValueError("weights are all zero; give at least one task a positive weight")
        return self

    @model_validator(mode="after")
    def _scales_fit(self) -> Self:
        if isinstance(self.normalize, dict):
            self._check_names("normalize", list(self.normalize))
            for name, (low, high) in self.normalize.items():
                if name not in self.evolved:
                    raise ValueError(f"normalize names {name}, which is not evolved; leave it out")
                if not (math.isfinite(low) and math.isfinite(high) and low < high):
                    raise ValueError(f"normalize: the range of {name} is [{low:g}, {high:g}]; give [low, high]")
        return self

    @model_validator(mode="after")
    def _reported_tasks_have_no_penalty(self) -> Self:
        for name, task in self.tasks.items():
            if task.penalty is not None and name not in self.evolved:
                raise ValueError(f"task {name} has a penalty and is not evolved; leave the penalty out")
        return self

    def _check_names(self, key: str, names: Sequence[str]) -> None:
        for i, name in enumerate(names):
            if name not in self.tasks:
                raise ValueError(f"{key}: unknown task {name!r}; {did_you_mean(name, self.tasks, kind='tasks')}")
            if name in names[:i]:
                raise ValueError(f"{key} names {name} twice")
