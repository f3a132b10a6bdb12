"""Which answers graders hold and which wait, with graders that never finish."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from evoswarm.backend.base import Counters
from evoswarm.backend.learned import Learned
from evoswarm.backend.ray.grading import Grading
from evoswarm.backend.round import Call


@dataclass
class Busy:
    """A grader that notes what it gets."""

    got: list[object] = field(default_factory=list)

    @property
    def grade(self) -> Busy:
        return self

    @property
    def learned(self) -> Never:
        return Never()

    def remote(self, answers: object) -> object:
        self.got.append(answers)
        return object()


class Never:
    """A call without an answer."""

    def remote(self) -> object:
        return object()


@dataclass
class Group:
    """Graders, of which some are up."""

    actors: list[Busy]
    up: list[int]


def grading_of(group: Group, *, at_once: int = 1) -> Grading:
    return Grading(group, at_once, None, 3, Learned(), Counters())  # type: ignore[arg-type]


def fill(grading: Grading, *, scorers: int) -> int:
    """Add answers until there is no room; returns their number."""
    count = 0
    while grading.has_room(scorers):
        grading.add(None, Call(0, ((0, count),)), f"answers {count}")  # type: ignore[arg-type]
        count += 1
    return count


def test_graders_that_are_slower_than_engines_bound_what_is_ungraded() -> None:
    group = Group([Busy()], [0])
    assert fill(grading_of(group), scorers=1) == 4 and len(group.actors[0].got) == 2
    assert fill(grading_of(Group([Busy()], [0]), at_once=8), scorers=3) == 22


def test_answers_are_divided_among_graders_that_are_up_and_wait_for_those_that_come() -> None:
    group: Any = Group([Busy(), Busy(), Busy()], [0, 2])
    grading = grading_of(group)
    assert fill(grading, scorers=1) == 8
    assert [len(grader.got) for grader in group.actors] == [2, 0, 2]
    group.up = [0, 1, 2]
    grading.send()
    assert group.actors[1].got == ["answers 4", "answers 5"]


def test_without_a_grader_answers_wait() -> None:
    group = Group([Busy()], [])
    assert fill(grading_of(group), scorers=1) == 4 and not group.actors[0].got
