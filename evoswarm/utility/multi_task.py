"""Several tasks as one utility."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from evoswarm.errors import UserError
from evoswarm.utility.flips import penalized
from evoswarm.utility.multi_task_config import MultiTask
from evoswarm.utility.scales import Scale, by_base, by_experts
from evoswarm.utility.tasks import TASKS
from evoswarm.utility.types import SPLITS, Outcome, Request, Response, Single, Split, Utility

T = TypeVar("T")


class Place(NamedTuple):
    """The example of a task that an example of all tasks is."""

    task: str
    split: Split
    example: int


class MultiTaskUtility:
    """The concatenated examples of all tasks, and one number for all of them.

    harmonic_mean: n / sum_k 1 / u_k over the n evolved tasks' utilities u_k, and 0 if one of them is 0.
    weighted_sum: sum_k w_k u_k, weights normalized to sum 1.
    With `normalize`, u_k is on the scale of its task; the harmonic mean takes what is below that scale for 0.

    The requests are those of the first task, then of the second, ... An example's `id` is "task/id". Validation and
    test are those of the evolved tasks, select is the validation split of the task `select_on`, and report holds the
    test examples of all tasks that are not evolved, or the validation examples of those without.
    Source: Model Swarms (arXiv 2410.11163), section 3.2; GENOME (arXiv 2503.01155), weighted sum and zero-shot.

    Raises:
        UserError: only some of the evolved tasks have a test split, or their utilities cannot be combined.
    """

    config_class = MultiTask

    def __init__(self, config: MultiTask, *, root: Path) -> None:
        self.config = config
        self.tasks: dict[str, Utility] = {
            name: penalized(TASKS[task.type](task, root=root), task) for name, task in config.own_tasks.items()
        }
        self._scales = given_scales(config)
        self._evolved = {name: self.tasks[name] for name in config.evolved}
        refuse_negative(config, self._evolved)
        self.votes = all(task.votes for task in self._evolved.values())
        untested = [name for name, task in self._evolved.items() if not task.size("test")]
        if 0 < len(untested) < len(self._evolved):
            raise UserError(
                f"utility.tasks: no test split for {', '.join(untested)}; set data.test there, or to null in every task"
            )
        chosen: dict[Split, dict[str, Split]] = {split: dict.fromkeys(self._evolved, split) for split in SPLITS}
        chosen["select"] = {} if config.select_on is None else {config.select_on: "validation"}
        chosen["report"] = self._reported()
        self._places = {
            split: [Place(name, own, i) for name, own in parts.items() for i in range(self.tasks[name].size(own))]
            for split, parts in chosen.items()
        }
        self._parts = chosen

    def _reported(self) -> dict[str, Split]:
        """The tasks that are only reported, and on which split. One that chooses the winner needs a test split."""
        found: dict[str, Split] = {}
        for name, task in self.tasks.items():
            if not self.config.report or name in self._evolved:
                continue
            if task.size("test"):
                found[name] = "test"
            elif name != self.config.select_on:
                found[name] = "validation"
        return found

    @property
    def negative(self) -> bool:
        return any(task.negative for task in self._evolved.values())

    @property
    def splits(self) -> list[Split]:
        return list(self._parts)

    def size(self, split: Split) -> int:
        return len(self._places[split])

    def requests(self, split: Split) -> list[Request]:
        return [request for name, own in self._parts[split].items() for request in self.tasks[name].requests(own)]

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        place = self._places[split][index]
        return self.tasks[place.task].follow(place.split, place.example, response)

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        places = [self._places[split][index] for index in indices]
        found: dict[int, Outcome] = {}
        for name, own in self._parts[split].items():
            mine = [i for i, place in enumerate(places) if place.task == name]
            if mine:
                asked, given = [places[i].example for i in mine], [responses[i] for i in mine]
                found |= zip(mine, self.tasks[name].outcomes(own, asked, given), strict=True)
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
        place = self._places[split][index]
        return self.tasks[place.task].ruled_out(place.split, place.example, prefix)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        owned = self._by_task(split, scores), self._by_task(split, statistics)
        return {
            f"{name}/{metric}": value
            for name, own in self._parts[split].items()
            for metric, value in self.tasks[name].metrics(own, owned[0][name], owned[1][name]).items()
        }

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        place = self._places[split][index]
        return self.tasks[place.task].gold_logprob(place.split, place.example, logprobs)

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        place = self._places[split][index]
        return self.tasks[place.task].gold_after(place.split, place.example, response)

    def baselines(self, split: Split) -> list[str]:
        """Those of the evolved tasks, and on validation those of `normalize`."""
        parts = self._parts[split].items() if split in SPLITS else ()
        tasks = [name for task, own in parts for name in self.tasks[task].baselines(own)]
        mine = {"base": ["base"], "experts": ["base", "experts"]}.get(str(self.config.normalize), [])
        return list(dict.fromkeys(tasks + (mine if split == "validation" else [])))

    def calibrate(self, split: Split, measured: Mapping[str, Sequence[Sequence[float]]]) -> None:
        owned = {name: [self._by_task(split, scores) for scores in lists] for name, lists in measured.items()}
        for task, own in self._parts[split].items():
            names = self.tasks[task].baselines(own)
            self.tasks[task].calibrate(own, {name: [of[task] for of in owned[name]] for name in names})
        if split == "validation" and self.config.normalize in ("base", "experts"):
            base, *experts = (
                self.task_utilities(split, scores) for name in ("base", "experts") for scores in measured.get(name, ())
            )
            self._scales = by_base(base) if self.config.normalize == "base" else by_experts(base, experts)

    @property
    def scales(self) -> dict[str, Scale]:
        """The scales of evolved tasks that are normalized; empty before `calibrate`."""
        return self._scales or {}

    def _scale(self, task: str) -> Scale:
        if self._scales is None:
            raise ValueError("base and experts have not been measured")
        return self._scales.get(task, Scale())

    def _shares(self) -> dict[str, float]:
        """The weights of the evolved tasks, not normalized."""
        return self.config.weights or dict.fromkeys(self._evolved, 1.0)

    def weights(self, split: Split) -> list[float]:
        shares = {k: w / (self._scale(k).high - self._scale(k).low) for k, w in self._shares().items()}
        total = math.fsum(shares.values())
        parts = self._parts[split].items()
        return [shares[name] / total * w for name, own in parts for w in self.tasks[name].weights(own)]

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        place = self._places[split][index]
        return self.tasks[place.task].vote(place.split, place.example, predictions)

    def example(self, split: Split, index: int) -> dict[str, Any]:
        place = self._places[split][index]
        fields = self.tasks[place.task].example(place.split, place.example)
        return {**fields, "task": place.task, "id": f"{place.task}/{fields['id']}"}

    def task_utilities(self, split: Split, scores: Sequence[float]) -> dict[str, float]:
        of_task = self._by_task(split, scores)
        return {name: self.tasks[name].aggregate(own, of_task[name]) for name, own in self._parts[split].items()}

    def _by_task(self, split: Split, values: Sequence[T]) -> dict[str, list[T]]:
        """Values of all examples, by task."""
        of_task: dict[str, list[T]] = {name: [] for name in self._parts[split]}
        for place, value in zip(self._places[split], values, strict=True):
            of_task[place.task].append(value)
        return of_task

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        utilities = self.task_utilities(split, scores)
        if split not in SPLITS:  # of one task, or of tasks of any kind, which are shown one by one
            return math.fsum(utilities.values()) / len(utilities)
        scaled = {name: self._scale(name).of(utility) for name, utility in utilities.items()}
        if len(scaled) == 1:
            return next(iter(scaled.values()))
        if self.config.combine == "harmonic_mean":
            return harmonic_mean({k: max(0.0, u) if k in self.scales else u for k, u in scaled.items()})
        shares = self._shares()
        return math.fsum(shares[k] * u for k, u in scaled.items()) / math.fsum(shares.values())

    @property
    def reasoning_tags(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys(tag for task in self.tasks.values() for tag in task.reasoning_tags))

    @property
    def warnings(self) -> list[str]:
        found = [f"task {name}: {warning}" for name, task in self.tasks.items() for warning in task.warnings]
        untested = [name for name, own in self._parts["report"].items() if own == "validation"]
        return found + [f"task {name} has no test split and is reported on validation" for name in untested]

    @property
    def sha256(self) -> str:
        lines = "".join(f"{name} {task.sha256}\n" for name, task in self.tasks.items())
        return hashlib.sha256(lines.encode()).hexdigest()


def given_scales(config: MultiTask) -> dict[str, Scale] | None:
    """The scales that a config gives; None if they must be measured."""
    if isinstance(config.normalize, dict):
        return {name: Scale(*ends) for name, ends in config.normalize.items()}
    return {} if config.normalize == "none" else None


def refuse_negative(config: MultiTask, evolved: Mapping[str, Utility]) -> None:
    """Refuse what needs utilities of 0 or more if they can be negative.

    Raises:
        UserError: the tasks cannot be combined in this way.
    """
    if config.normalize == "experts":
        negative = [f"{name} (below the base model)" for name in evolved]
    else:
        given = config.normalize if isinstance(config.normalize, dict) else {}
        kinds = {name: f"{name} ({task.type})" for name, task in config.tasks.items()}
        negative = [kinds[name] for name, task in evolved.items() if task.negative and name not in given]
    if negative and config.combine == "harmonic_mean" and len(evolved) > 1:
        raise UserError(
            f"utility.combine: harmonic_mean needs utilities of 0 or more, and {', '.join(negative)} can be negative; "
            "set combine: weighted_sum"
        )
    if negative and config.normalize == "base":
        raise UserError(f"utility.normalize: base needs utilities above 0, and {', '.join(negative)} can be negative")


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
