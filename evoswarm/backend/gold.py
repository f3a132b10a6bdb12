"""Log-probabilities of right answers in the places where a model's own texts have their answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from evoswarm.engine import Engine, Reply, answer
from evoswarm.errors import UserError
from evoswarm.utility import Request


def gold_logprobs(
    engine: Engine, requests: Mapping[int, Request], *, of: Sequence[Hashable] | None
) -> dict[int, float]:
    """The log-probability of each request's option or draft, by position; see `Utility.gold_after`.

    A request that the model cannot take (its own text and the right answer are too long together) is left out.

    Args:
        engine: a `MultiAdapterEngine` if `of` is given.
        requests: by position.
        of: the particle at each position; None: the installed one.
    """
    if not requests:
        return {}
    particles = None if of is None else [of[i] for i in requests]
    try:
        # Nothing has to be generated: what differs from a draft is wrong anyway.
        replies = answer(engine, list(requests.values()), of=particles, ruled_out=lambda *_: True, logprobs=True)
    except UserError:
        each = ({i: request} for i, request in requests.items() if len(requests) > 1)
        return {i: value for one in each for i, value in gold_logprobs(engine, one, of=of).items()}
    found = {i: _logprob(reply) for i, reply in zip(requests, replies, strict=True)}
    return {i: value for i, value in found.items() if value is not None}


def _logprob(reply: Reply) -> float | None:
    if isinstance(reply.response, Sequence) and not isinstance(reply.response, str):
        return reply.response[0].logprob
    return reply.draft_logprob
