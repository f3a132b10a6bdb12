"""Outcomes become an evaluation."""

from __future__ import annotations

from pathlib import Path

from echo import echo_config

from evoswarm.backend.base import Assembly, Job
from evoswarm.utility import Outcome, make_utility


def test_scores_without_a_finite_mean_are_a_failed_evaluation_and_not_a_crash(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    utility = make_utility(config.utility, root=config.root)
    assembly = Assembly(Job(0, "experts", 0, None), 100)
    assembly.add(range(100), [Outcome(1e308, None)] * 100)
    evaluation = assembly.evaluation(utility)
    assert evaluation.utility is None
    assert evaluation.error == "the scores are too large to be combined into a finite utility"
