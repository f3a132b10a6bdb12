"""Utilities that are scored in graders: which kinds of grader a config needs, and what it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from evoswarm.utility import TASKS, Outcome, Response, Split, UtilityConfig
from evoswarm.utility.config import Grading, Task
from evoswarm.utility.multi_task import MultiTaskUtility
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.wrapped import WrappedUtility

Make = Callable[..., Any]
DATA = {"data": "numbers.json"}


class Asks(Task):
    """Scored by a service."""

    type: Literal["asks"] = "asks"
    grading: ClassVar[Grading | None] = "service"


class AsksUtility(TaskUtility[Asks]):
    """Learns one answer, recalls others, and says what happens to it."""

    config_class = Asks

    def __init__(self, config: Asks, *, root: Path) -> None:
        super().__init__(config, root=root)
        self.events: list[object] = []

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        return Outcome(1.0, None)

    def open(self) -> None:
        self.events.append("open")

    def close(self) -> None:
        self.events.append("close")

    def learned(self) -> dict[str, str]:
        return {f"key {len(self.events)}": "1"}

    def recall(self, entries: Mapping[str, str]) -> None:
        self.events.append(dict(entries))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "asks", AsksUtility)


def test_cheap_types_need_no_grader_and_a_graded_part_makes_its_whole_graded(make: Make) -> None:
    tasks = {"cheap": {"type": "exact_match", **DATA}, "graded": {"type": "asks", **DATA}}
    graded: UtilityConfig = make("multi_task", tasks=tasks).config
    assert graded.all_grading == {"service"} and graded.grading is None
    assert make("exact_match", **DATA).config.all_grading == set()


def test_parts_are_opened_recalled_closed_and_asked_for_what_they_learned(make: Make) -> None:
    tasks = {"cheap": {"type": "exact_match", **DATA}, "graded": {"type": "asks", **DATA}}
    whole: MultiTaskUtility = make("multi_task", tasks=tasks)
    utility = WrappedUtility(whole)
    assert utility.learned() == {"key 0": "1"}
    utility.recall({"a": "2"})
    utility.open()
    utility.close()
    asked = whole.tasks["graded"]
    assert isinstance(asked, AsksUtility) and asked.events == [{"a": "2"}, "open", "close"]
