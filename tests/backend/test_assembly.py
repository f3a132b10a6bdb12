"""Outcomes become an evaluation."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from echo import echo_config
from hypothesis import given, settings
from hypothesis import strategies as st

from evoswarm.backend.base import Assembly, Evaluation, Job, within
from evoswarm.config.utility import MultiTask
from evoswarm.utility import Outcome, make_utility


def test_scores_without_a_finite_mean_are_a_failed_evaluation_and_not_a_crash(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    utility = make_utility(config.utility, root=config.root)
    assembly = Assembly(Job(0, "experts", 0, None), [tuple(range(100))], utility)
    assembly.add(0, [Outcome(1e308, None)] * 100)
    evaluation = assembly.evaluation()
    assert evaluation.utility is None
    assert evaluation.error == "the scores are too large to be combined into a finite utility"


def test_scores_that_the_utility_cannot_combine_fail_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(example, response):\n    return -1.0\n")
    (tmp_path / "x.json").write_text('[{"question": "q", "answer": "a"}]')
    task = {"type": "custom", "function": "judge:judge", "data": {"path": "x.json", "test": None}}
    config = MultiTask.model_validate({"type": "multi_task", "tasks": {"one": task, "two": task}})
    assembly = Assembly(Job(0, "p", 0, None), [(0, 1)], make_utility(config, root=tmp_path))
    assembly.add(0, [Outcome(-1.0, None), Outcome(0.5, None)])
    evaluation = assembly.evaluation()
    assert evaluation.utility is None
    assert evaluation.error is not None and "harmonic_mean needs utilities of 0 or more" in evaluation.error
    assert evaluation.scores == [-1.0, 0.5]


CUT = [(0, 1, 2), (3, 4), (5, 6, 7), (8, 9)]


def of_scores(utility, scores: list[float | None], *, enough: tuple[float, float] | None, order=range(4)) -> Evaluation:  # type: ignore[no-untyped-def]
    """What the assembly makes of ten scores that come in this order of slices."""
    assembly = Assembly(Job(1, "move", 0, None, enough=enough), CUT, utility)
    for number in order:
        if not assembly.complete:
            assembly.add(number, [Outcome(scores[i], None, "no" if scores[i] is None else None) for i in CUT[number]])
    return assembly.evaluation()


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    config = echo_config(tmp_path_factory.mktemp("echo"), "utility.data={path: echo.json, limit: 10}")
    return make_utility(config.utility, root=config.root)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=10, max_size=10), st.floats(0, 1), st.floats(0, 1))
def test_an_evaluation_stops_with_the_first_slice_that_decides(ten, scores, floor, ceiling) -> None:  # type: ignore[no-untyped-def]
    exact = of_scores(ten, scores, enough=None)
    stopped = of_scores(ten, scores, enough=(floor, ceiling))
    assert exact.bounds is None and exact.examples == 10
    if stopped.bounds is None:
        assert stopped.scores == exact.scores and stopped.utility == exact.utility
    else:
        assert stopped.bounds[0] <= exact.utility <= stopped.bounds[1]
        assert within(stopped.bounds, (floor, ceiling)) and stopped.examples in (3, 5, 8)
        shorter = of_scores(ten, scores[: stopped.examples] + [1.0] * (10 - stopped.examples), enough=(floor, ceiling))
        assert shorter.scores == stopped.scores
    assert (stopped.bounds is not None) == any(
        floor <= sum(scores[:n]) / 10 and (sum(scores[:n]) + 10 - n) / 10 <= ceiling for n in (3, 5, 8)
    )


def test_the_order_in_which_slices_come_changes_nothing(ten) -> None:  # type: ignore[no-untyped-def]
    scores: list[float | None] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    found = {repr(of_scores(ten, scores, enough=(0.1, 0.4), order=order)) for order in permutations(range(4))}
    assert len(found) == 1 and "bounds=(0.2, 0.4)" in found.pop()


def test_an_example_that_failed_is_said_and_never_stops_an_evaluation(ten) -> None:  # type: ignore[no-untyped-def]
    evaluation = of_scores(ten, [None] + [0.0] * 9, enough=(0.0, 1.0))
    assert evaluation.bounds is None and evaluation.utility is None and len(evaluation.scores) == 10


def test_a_utility_whose_scores_know_no_limits_stops_none(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(example, response):\n    return 0.5\n")
    for given_range, stops in (("null", False), ("[0, 1]", True)):
        custom = (
            f"type: custom, function: 'judge:judge', score_range: {given_range}, data: {{path: echo.json, limit: 10}}"
        )
        config = echo_config(tmp_path, f"utility={{{custom}}}")
        evaluation = of_scores(make_utility(config.utility, root=config.root), [0.0] * 10, enough=(0.0, 1.0))
        assert (evaluation.bounds is not None) == stops


def test_a_score_outside_of_the_stated_range_fails_the_example(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("def judge(example, response):\n    return 1.5\n")
    config = echo_config(
        tmp_path, "utility={type: custom, function: 'outside:judge', score_range: [0, 1], data: echo.json}"
    )
    outcome = make_utility(config.utility, root=config.root).outcome("validation", 0, "x")
    assert outcome.score is None and outcome.error is not None and "outside of score_range 0 to 1" in outcome.error
