"""Several tasks as one utility."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from evoswarm.config.utility import MultiTask
from evoswarm.errors import UserError
from evoswarm.utility.types import SPLITS, Outcome, Request, Response, Split, Utility


class MultiTaskUtility:
    """The examples of all tasks, one task after the other, and one number for all of them.

    harmonic_mean: n / sum_k 1 / u_k over the n tasks' utilities u_k, and 0 where one of them is 0.
    weighted_sum: sum_k w_k u_k, weights normalised to sum 1.

    Source: Model Swarms (arXiv 2410.11163), section 3.2; GENOME (arXiv 2503.01155), weighted sum.

    Args:
        config: The configuration.
        tasks: The utilities of its tasks, by name.

    Raises:
        UserError: only some of the tasks have a test split.
    """

    def __init__(self, config: MultiTask, *, tasks: Mapping[str, Utility]) -> None:
        self.config = config
        self.tasks = dict(tasks)
        self.votes = all(task.votes for task in tasks.values())
        untested = [name for name, task in tasks.items() if not task.size("test")]
        if 0 < len(untested) < len(tasks):
            raise UserError(
                f"utility.tasks: no test split for {', '.join(untested)}; set data.test there, or to null in every task"
            )
        self._places = {
            split: [(name, i) for name, task in tasks.items() for i in range(task.size(split))] for split in SPLITS
        }

    def size(self, split: Split) -> int:
        """Number of examples of all tasks."""
        return len(self._places[split])

    def requests(self, split: Split) -> list[Request]:
        """The requests of the first task, then of the second, ..."""
        return [request for task in self.tasks.values() for request in task.requests(split)]

    def outcome(self, split: Split, index: int, response: Response) -> Outcome:
        """The outcome that the example's task gives."""
        name, own_index = self._places[split][index]
        return self.tasks[name].outcome(split, own_index, response)

    def ruled_out(self, split: Split, index: int, beginning: str) -> bool:
        """What the example's task says."""
        name, own_index = self._places[split][index]
        return self.tasks[name].ruled_out(split, own_index, beginning)

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        """The vote of the example's task."""
        name, own_index = self._places[split][index]
        return self.tasks[name].vote(split, own_index, predictions)

    def example(self, split: Split, index: int) -> dict[str, Any]:
        """The task's example, its `id` as "task/id", and the task's name as `task`."""
        name, own_index = self._places[split][index]
        fields = self.tasks[name].example(split, own_index)
        return {**fields, "task": name, "id": f"{name}/{fields['id']}"}

    def task_utilities(self, split: Split, scores: Sequence[float]) -> dict[str, float]:
        """The utility of each task by name.

        Raises:
            ValueError: not one score per example.
        """
        if len(scores) != self.size(split):
            raise ValueError(f"{self.size(split)} examples in {split}, {len(scores)} scores")
        utilities, start = {}, 0
        for name, task in self.tasks.items():
            stop = start + task.size(split)
            utilities[name] = task.aggregate(split, scores[start:stop])
            start = stop
        return utilities

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        """Combine the tasks' utilities.

        Raises:
            UserError: harmonic_mean of a negative utility.
            ValueError: not one score per example.
        """
        utilities = self.task_utilities(split, scores)
        if self.config.combine == "harmonic_mean":
            return harmonic_mean(utilities)
        weights = self.config.weights or dict.fromkeys(utilities, 1.0)
        return math.fsum(weights[k] * u for k, u in utilities.items()) / math.fsum(weights.values())

    @property
    def warnings(self) -> list[str]:
        """The tasks' warnings, each with the task's name."""
        return [f"task {name}: {warning}" for name, task in self.tasks.items() for warning in task.warnings]

    @property
    def sha256(self) -> str:
        """Hash of the tasks' names and hashes, in order."""
        lines = "".join(f"{name} {task.sha256}\n" for name, task in self.tasks.items())
        return hashlib.sha256(lines.encode()).hexdigest()


def harmonic_mean(utilities: Mapping[str, float]) -> float:
    """n / sum(1 / u); 0 where a utility is 0.

    Raises:
        UserError: a utility is negative.
    """
    for name, utility in utilities.items():
        if utility < 0:
            raise UserError(
                f"utility.combine: harmonic_mean needs utilities of 0 or more, and task {name} has {utility:g}; "
                "use weighted_sum"
            )
    if not all(utilities.values()):
        return 0.0
    return len(utilities) / math.fsum(1 / utility for utility in utilities.values())
