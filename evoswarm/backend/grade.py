"""From answers to outcomes: beside the engine, or in an actor of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from evoswarm.backend.pieces import Answers, describe
from evoswarm.engine import Reply
from evoswarm.errors import UserError
from evoswarm.utility import Outcome, Prefix, Utility, UtilityConfig
from evoswarm.utility.types import finite

WRONG = Outcome(0.0, None)
"""The outcome of an answer that was not completed, because it was certain to be wrong."""
NO_NUMBER = "the log-probability of the right answer is not a number; the weights may be too large for engine.dtype"
AT_ONCE = 8
"""Slices whose answers a service grades at once."""


@dataclass(frozen=True)
class Graded:
    """What came of slices of answers.

    Attributes:
        results: the outcomes of each slice in the order of its indices, or one line why it cannot be scored.
        error: a problem that would stop every particle; `results` then lacks slices.
        learned: see `Utility.learned`.
        seconds: how long it took.
    """

    results: list[list[Outcome] | str]
    error: str | None = None
    learned: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def checked(self) -> list[list[Outcome] | str]:
        """The results.

        Raises:
            UserError: there is an error.
        """
        if self.error is not None:
            raise UserError(self.error)
        return self.results


class Grader:
    """Scores answers with a utility."""

    def __init__(self, utility: Utility) -> None:
        self._utility = utility

    def grade(self, answered: Sequence[Answers | str]) -> Graded:
        """The outcomes of slices of answers; one line for answers that cannot be scored."""
        start = time.perf_counter()
        results: list[list[Outcome] | str] = []
        error = None
        try:
            for answers in answered:
                results.append(answers if isinstance(answers, str) else self._graded(answers))
        except UserError as problem:
            error = str(problem)
        return Graded(results, error, self._utility.learned(), time.perf_counter() - start)

    def _graded(self, answers: Answers) -> list[Outcome] | str:
        complete = {
            i: reply.response for i, reply in enumerate(answers.replies) if not isinstance(reply.response, Prefix)
        }
        try:
            scored = self._utility.outcomes(
                answers.split, [answers.indices[i] for i in complete], list(complete.values())
            )
        except UserError:
            raise
        except Exception as error:  # a utility may raise anything: only this particle fails
            return describe(error)
        found = dict(zip(complete, scored, strict=True))
        return [_with_logprobs(found.get(i, WRONG), reply) for i, reply in enumerate(answers.replies)]


def at_once(config: UtilityConfig) -> int:
    """How many calls a grader of this utility grades at once; 0 if it needs no grader."""
    if not config.all_grading:
        return 0
    return AT_ONCE if config.all_grading == {"service"} else 1


def _with_logprobs(outcome: Outcome, reply: Reply) -> Outcome:
    known = outcome.logprobs if reply.draft_logprob is None else (reply.draft_logprob,)
    if any(math.isnan(value) for value in known):
        return Outcome(None, None, NO_NUMBER)
    return replace(outcome, logprobs=finite(known))
