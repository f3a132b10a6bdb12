"""Evaluations as arrays over the validation examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evoswarm.backend import Evaluation
from evoswarm.search import Outcomes
from evoswarm.utility import Split, Utility


def outcomes_of(evaluations: Sequence[Evaluation], utility: Utility) -> Outcomes:
    """What a search that learns from outcomes is told about evaluations on the validation split."""
    size = utility.size("validation")
    scores, gold = np.full((2, len(evaluations), size), np.nan)
    by_task = [task_utilities(evaluation, utility, "validation") for evaluation in evaluations]
    tasks = next((tuple(found) for found in by_task if found), ())
    objectives = np.full((len(evaluations), len(tasks)), np.nan)
    for i, evaluation in enumerate(evaluations):
        if evaluation.utility is not None:
            scores[i] = evaluation.scores
            gold[i] = gold_logprobs(evaluation, utility)
            objectives[i] = list(by_task[i].values())
    return Outcomes(scores, gold, np.array(utility.weights("validation")), tasks, objectives)


def task_utilities(evaluation: Evaluation, utility: Utility, split: Split) -> dict[str, float]:
    """The utility of each task of an evaluation; empty if it failed, or the utility is one task."""
    if evaluation.utility is None:
        return {}
    return utility.task_utilities(split, [score or 0.0 for score in evaluation.scores])


def gold_logprobs(evaluation: Evaluation, utility: Utility) -> list[float]:
    """Log-probability of the right answer of each validation example; NaN if unknown."""
    size = utility.size("validation")
    known = evaluation.logprobs if len(evaluation.logprobs) == size else [()] * size
    return [utility.gold_logprob("validation", i, logprobs) for i, logprobs in enumerate(known)]
