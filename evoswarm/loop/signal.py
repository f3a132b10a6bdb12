"""Whether the initial experts' outcomes give the search something to select by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from evoswarm.backend import Evaluation
from evoswarm.loop.directory import RunDirectory, generation_name
from evoswarm.loop.journal import evaluation_of, outcome_path
from evoswarm.loop.outcomes import task_utilities
from evoswarm.loop.records import read_outcomes
from evoswarm.search import Search
from evoswarm.utility import Utility

SHOWN = 40
"""Most characters of an answer in a warning."""


FEW = 20
"""A surrogate of fewer examples than this knows little."""


def signal_warnings(directory: RunDirectory, search: Search, utility: Utility) -> list[str]:
    """`missing_signal`, `missing_outcomes` and `equal_tasks` of a run whose generation 0 is recorded."""
    records = read_outcomes(outcome_path(directory, generation_name(0)))
    found = {search.experts[r["particle"]]: evaluation_of(r) for r in records if r["phase"] == "experts"}
    warnings = missing_signal(found) + (missing_outcomes(found) if search.config.logprobs else [])
    return warnings + (equal_tasks(found, utility) if search.config.several else [])


def missing_outcomes(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """One warning for each thing that a search which learns from the outcomes of examples lacks."""
    known = [evaluation for evaluation in evaluations.values() if evaluation.utility is not None]
    examples = max((evaluation.examples for evaluation in known), default=0)
    unknown = max((evaluation.examples - sum(map(bool, evaluation.logprobs)) for evaluation in known), default=0)
    found = []
    if 0 < examples < FEW:
        found.append(f"the search learns from few validation examples ({examples}); use {FEW} or more")
    if unknown and unknown == examples:
        found.append(
            "this utility gives no log-probabilities of right answers, so the search learns from scores alone and "
            "loses most of its gain. They are known for multiple_choice and exact_match; where the answer follows free "
            "text, only if it is found in it"
        )
    elif unknown:
        found.append(
            f"{unknown} of {examples} validation examples have no log-probability of the right answer (no answer was "
            "found in the text, or not in digits); the search learns from their scores alone"
        )
    return found


def equal_tasks(evaluations: Mapping[str, Evaluation], utility: Utility) -> list[str]:
    """One warning for each pair of objectives on which all experts have the same utility."""
    found = [task_utilities(evaluation, utility, "validation") for evaluation in evaluations.values()]
    known = [tasks for tasks in found if tasks]
    pairs = combinations(known[0], 2) if len(known) > 1 else ()
    return [
        f"tasks {one} and {other} have the same utility for every expert, so they are one objective; check their data"
        for one, other in pairs
        if all(tasks[one] == tasks[other] for tasks in known)
    ]


def missing_signal(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """One warning for each reason why a search cannot tell the experts apart. Failed evaluations do not count."""
    known = {name: evaluation for name, evaluation in evaluations.items() if evaluation.utility is not None}
    return [warning for warning in (_equal_utilities(known), _constant_answers(known)) if warning]


def _equal_utilities(known: Mapping[str, Evaluation]) -> str | None:
    utilities = {evaluation.utility for evaluation in known.values()}
    if len(known) < 2 or len(utilities) > 1:
        return None
    return f"the utility gives the search no signal: {_scores(known)}"


def _scores(known: Mapping[str, Evaluation]) -> str:
    scores = {score for evaluation in known.values() for score in evaluation.scores}
    if scores == {0.0}:
        return (
            f"all {len(known)} experts score 0 on every validation example. Look at some answers (outcomes/), then try "
            "another prompt, few-shot examples, a larger max_new_tokens or easier examples"
        )
    if scores == {1.0}:
        return f"all {len(known)} experts score 1 on every validation example. Try harder examples"
    utility = next(iter(known.values())).utility
    return (
        f"all {len(known)} experts have the utility {utility:.4g}. Try more validation examples, a utility with finer "
        "scores, or experts that differ more"
    )


def _constant_answers(known: Mapping[str, Evaluation]) -> str | None:
    constant = {name: e.predictions[0] for name, e in known.items() if len(e.predictions) > 1 and _is_constant(e)}
    if not constant:
        return None
    answers = " or ".join(sorted({repr(answer)[:SHOWN] for answer in constant.values()})[:3])
    who = f"all {len(known)} experts" if len(constant) == len(known) else f"{len(constant)} of {len(known)} experts"
    return (
        f"{who} give the same answer to every validation example ({answers}), so the examples have no influence on the "
        "utility. Try few-shot examples, another prompt, a task that the base model can do, or for multiple choice "
        "`options: texts`"
    )


def _is_constant(evaluation: Evaluation) -> bool:
    """Whether every prediction is one and the same text. Unknown predictions, which are wrong answers, may differ."""
    return len(set(evaluation.predictions)) == 1 and evaluation.predictions[0] is not None
