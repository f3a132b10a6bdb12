"""All requests that a utility can make."""

from __future__ import annotations

from collections.abc import Iterator

from evoswarm.utility.types import Generate, OptionScore, Request, Single, Utility


def every_request(utility: Utility) -> Iterator[Request]:
    """The requests of all splits, each with the one that follows an answer of full length."""
    for split in utility.splits:
        for index, request in enumerate(utility.requests(split)):
            yield request
            second = utility.follow(split, index, _longest_answer(request))
            if second is not None:
                yield second


def _longest_answer(request: Request) -> Single:
    """A response that takes at least as many tokens as any other."""
    if isinstance(request, Generate):
        return " x" * request.max_new_tokens
    longest = max(len(option) for option in request.options)
    return [OptionScore(0.0 if len(option) == longest else -1.0, 1) for option in request.options]
