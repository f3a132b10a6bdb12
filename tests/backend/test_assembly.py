"""Outcomes become an evaluation."""

from __future__ import annotations

from pathlib import Path

from echo import echo_config

from evoswarm.backend.base import Assembly, Job
from evoswarm.config.utility import MultiTask
from evoswarm.utility import Outcome, make_utility


def test_scores_without_a_finite_mean_are_a_failed_evaluation_and_not_a_crash(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    utility = make_utility(config.utility, root=config.root)
    assembly = Assembly(Job(0, "experts", 0, None), 100)
    assembly.add(range(100), [Outcome(1e308, None)] * 100)
    evaluation = assembly.evaluation(utility)
    assert evaluation.utility is None
    assert evaluation.error == "the scores are too large to be combined into a finite utility"


def test_scores_that_the_utility_cannot_combine_fail_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(example, response):\n    return -1.0\n")
    (tmp_path / "x.json").write_text('[{"question": "q", "answer": "a"}]')
    task = {"type": "custom", "function": "judge:judge", "data": {"path": "x.json", "test": None}}
    config = MultiTask.model_validate({"type": "multi_task", "tasks": {"one": task, "two": task}})
    assembly = Assembly(Job(0, "p", 0, None), size=2)
    assembly.add([0, 1], [Outcome(-1.0, None), Outcome(0.5, None)])
    evaluation = assembly.evaluation(make_utility(config, root=tmp_path))
    assert evaluation.utility is None
    assert evaluation.error is not None and "harmonic_mean needs utilities of 0 or more" in evaluation.error
    assert evaluation.scores == [-1.0, 0.5]
