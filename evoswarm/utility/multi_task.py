"""Several tasks as one utility."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import model_validator

from evoswarm.errors import UserError
from evoswarm.registry import by_type
from evoswarm.section import NonNegative
from evoswarm.utility.config import UtilityConfig
from evoswarm.utility.tasks import TASKS
from evoswarm.utility.types import SPLITS, Outcome, Request, Response, Single, Split, Utility

T = TypeVar("T")


class MultiTask(UtilityConfig):
    """Several tasks as one utility (MS, section 3.2; GENOME, weighted sum)."""

    type: Literal["multi_task"] = "multi_task"
    tasks: dict[str, Annotated[UtilityConfig, by_type(TASKS, lambda entry: entry.config_class)]]
    """The tasks by name."""
    combine: Literal["harmonic_mean", "weighted_sum"] = "harmonic_mean"
    """harmonic_mean (MS) or weighted_sum (GENOME)."""
    weights: dict[str, NonNegative] | None = None
    """weighted_sum: the weight of each task, normalized to sum 1; equal by default."""

    @property
    def parts(self) -> tuple[UtilityConfig, ...]:
        """The tasks."""
        return tuple(self.tasks.values())

    def without_test(self) -> Self:
        """The same tasks without their test splits."""
        return self.with_(tasks={name: task.without_test() for name, task in self.tasks.items()})

    @model_validator(mode="after")
    def _weights_fit(self) -> MultiTask:
        if len(self.tasks) < 2:
            raise ValueError("multi_task needs at least two tasks; use the one task directly")
        negative = [f"{name} ({task.type})" for name, task in self.tasks.items() if task.negative]
        if negative and self.combine == "harmonic_mean":
            raise ValueError(
                f"combine: harmonic_mean needs utilities of 0 or more, and {', '.join(negative)} can be negative; set "
                "combine: weighted_sum"
            )
        if self.weights is not None and self.combine != "weighted_sum":
            raise ValueError("weights need combine: weighted_sum")
        if self.weights is not None and set(self.weights) != set(self.tasks):
            raise ValueError(f"weights must name each task once: {', '.join(self.tasks)}")
        if self.weights is not None and sum(self.weights.values()) == 0:
            raise ValueError("weights are all zero; give at least one task a positive weight")
        return self


class MultiTaskUtility:
    """The concatenated examples of all tasks, and one number for all of them.

    harmonic_mean: n / sum_k 1 / u_k over the n tasks' utilities u_k, and 0 if one of them is 0.
    weighted_sum: sum_k w_k u_k, weights normalized to sum 1.

    The requests are those of the first task, then of the second, ... An example's `id` is "task/id".
    Source: Model Swarms (arXiv 2410.11163), section 3.2; GENOME (arXiv 2503.01155), weighted sum.

    Raises:
        UserError: only some of the tasks have a test split.
    """

    config_class = MultiTask

    def __init__(self, config: MultiTask, *, root: Path) -> None:
        self.config = config
        self.tasks: dict[str, Utility] = {n: TASKS[task.type](task, root=root) for n, task in config.tasks.items()}
        self.votes = all(task.votes for task in self.tasks.values())
        untested = [name for name, task in self.tasks.items() if not task.size("test")]
        if 0 < len(untested) < len(self.tasks):
            raise UserError(
                f"utility.tasks: no test split for {', '.join(untested)}; set data.test there, or to null in every task"
            )
        self._places = {
            split: [(name, i) for name, task in self.tasks.items() for i in range(task.size(split))] for split in SPLITS
        }

    def size(self, split: Split) -> int:
        return len(self._places[split])

    def requests(self, split: Split) -> list[Request]:
        return [request for task in self.tasks.values() for request in task.requests(split)]

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        name, own = self._places[split][index]
        return self.tasks[name].follow(split, own, response)

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        places = [self._places[split][index] for index in indices]
        found: dict[int, Outcome] = {}
        for name, task in self.tasks.items():
            mine = [i for i, (owner, _) in enumerate(places) if owner == name]
            if mine:
                outcomes = task.outcomes(split, [places[i][1] for i in mine], [responses[i] for i in mine])
                found |= zip(mine, outcomes, strict=True)
        return [found[i] for i in range(len(places))]

    def open(self) -> None:
        for task in self.tasks.values():
            task.open()

    def close(self) -> None:
        for task in self.tasks.values():
            task.close()

    def learned(self) -> dict[str, str]:
        return {key: text for task in self.tasks.values() for key, text in task.learned().items()}

    def recall(self, entries: Mapping[str, str]) -> None:
        for task in self.tasks.values():
            task.recall(entries)

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        name, own = self._places[split][index]
        return self.tasks[name].ruled_out(split, own, prefix)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        owned = self._by_task(split, scores), self._by_task(split, statistics)
        return {
            f"{name}/{metric}": value
            for name, task in self.tasks.items()
            for metric, value in task.metrics(split, owned[0][name], owned[1][name]).items()
        }

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        name, own = self._places[split][index]
        return self.tasks[name].gold_logprob(split, own, logprobs)

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        name, own = self._places[split][index]
        return self.tasks[name].gold_after(split, own, response)

    def weights(self, split: Split) -> list[float]:
        shares = self.config.weights or dict.fromkeys(self.tasks, 1.0)
        total = math.fsum(shares.values())
        return [shares[name] / total * w for name, task in self.tasks.items() for w in task.weights(split)]

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        name, own = self._places[split][index]
        return self.tasks[name].vote(split, own, predictions)

    def example(self, split: Split, index: int) -> dict[str, Any]:
        name, own = self._places[split][index]
        fields = self.tasks[name].example(split, own)
        return {**fields, "task": name, "id": f"{name}/{fields['id']}"}

    def task_utilities(self, split: Split, scores: Sequence[float]) -> dict[str, float]:
        of_task = self._by_task(split, scores)
        return {name: task.aggregate(split, of_task[name]) for name, task in self.tasks.items()}

    def _by_task(self, split: Split, values: Sequence[T]) -> dict[str, list[T]]:
        """Values of all examples, by task."""
        of_task: dict[str, list[T]] = {name: [] for name in self.tasks}
        for (name, _), value in zip(self._places[split], values, strict=True):
            of_task[name].append(value)
        return of_task

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        utilities = self.task_utilities(split, scores)
        if self.config.combine == "harmonic_mean":
            return harmonic_mean(utilities)
        weights = self.config.weights or dict.fromkeys(utilities, 1.0)
        return math.fsum(weights[k] * u for k, u in utilities.items()) / math.fsum(weights.values())

    @property
    def reasoning_tags(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys(tag for task in self.tasks.values() for tag in task.reasoning_tags))

    @property
    def warnings(self) -> list[str]:
        return [f"task {name}: {warning}" for name, task in self.tasks.items() for warning in task.warnings]

    @property
    def sha256(self) -> str:
        lines = "".join(f"{name} {task.sha256}\n" for name, task in self.tasks.items())
        return hashlib.sha256(lines.encode()).hexdigest()


def harmonic_mean(utilities: Mapping[str, float]) -> float:
    """n / sum(1 / u); 0 if a utility is 0.

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
