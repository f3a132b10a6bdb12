"""From answers to outcomes: beside the engine, or in an actor of its own."""

from __future__ import annotations

import math
from dataclasses import replace

from evoswarm.backend.pieces import Answers, Done, describe
from evoswarm.engine import Reply
from evoswarm.errors import UserError
from evoswarm.utility import Outcome, Prefix, Utility
from evoswarm.utility.types import finite

WRONG = Outcome(0.0, None)
"""The outcome of an answer that was not completed, because it was certain to be wrong."""
NO_NUMBER = "the log-probability of the right answer is not a number; the weights may be too large for engine.dtype"


class Grader:
    """Scores answers with a utility."""

    def __init__(self, utility: Utility) -> None:
        self._utility = utility

    def grade(self, done: Done[Answers]) -> Done[list[Outcome]]:
        """The outcomes of answers; one line for answers that cannot be scored.

        Raises:
            UserError: a problem that would stop every particle.
        """
        results = [answers if isinstance(answers, str) else self._graded(answers) for answers in done.results]
        return done.with_results(results)

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


def _with_logprobs(outcome: Outcome, reply: Reply) -> Outcome:
    known = outcome.logprobs if reply.draft_logprob is None else (reply.draft_logprob,)
    if any(math.isnan(value) for value in known):
        return Outcome(None, None, NO_NUMBER)
    return replace(outcome, logprobs=finite(known))
