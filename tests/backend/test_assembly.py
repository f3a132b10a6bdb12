"""Outcomes become an evaluation."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

from echo import echo_config

from evoswarm.backend.base import Assembly, Job
from evoswarm.utility import Outcome, make_utility
from evoswarm.utility.multi_task import MultiTask


def test_scores_without_a_finite_mean_are_a_failed_evaluation_and_not_a_crash(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    utility = make_utility(config.utility, root=config.root)
    assembly = Assembly(Job("a", None), [tuple(range(100))], utility)
    assembly.add(0, [Outcome(1e308, None)] * 100)
    evaluation = assembly.evaluation()
    assert evaluation.utility is None
    assert evaluation.error == "the scores are too large to be combined into a finite utility"


def test_scores_that_the_utility_cannot_combine_fail_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(example, response):\n    return -1.0\n")
    (tmp_path / "x.json").write_text('[{"question": "q", "answer": "a"}]')
    task = {"type": "custom", "function": "judge:judge", "data": {"path": "x.json", "test": None}}
    config = MultiTask.model_validate({"type": "multi_task", "tasks": {"one": task, "two": task}})
    assembly = Assembly(Job("a", None), [(0, 1)], make_utility(config, root=tmp_path))
    assembly.add(0, [Outcome(-1.0, None), Outcome(0.5, None)])
    evaluation = assembly.evaluation()
    assert evaluation.utility is None
    assert evaluation.error is not None and "harmonic_mean needs utilities of 0 or more" in evaluation.error
    assert evaluation.scores == [-1.0, 0.5]


CUT = [(0, 1, 2), (3, 4), (5, 6, 7), (8, 9)]


def test_slices_in_any_order_give_the_same_evaluation(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "utility.data={path: echo.json, limit: 10}")
    utility = make_utility(config.utility, root=config.root)
    scores = [1.0, 0.0, None, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    found = set()
    for order in permutations(range(4)):
        assembly = Assembly(Job("a", None), CUT, utility)
        for number in order:
            assert not assembly.complete
            assembly.add(number, [Outcome(scores[i], str(i), None if i != 2 else "no") for i in CUT[number]])
        assert assembly.complete
        found.add(repr(assembly.evaluation()))
    assert len(found) == 1
    evaluation = assembly.evaluation()
    assert evaluation.utility is None and evaluation.scores == scores
    assert evaluation.predictions == [str(i) for i in range(10)]
    assert evaluation.error is not None and evaluation.error.startswith("1 of 10 examples failed")
