"""What a run has spent at a service, and may still spend."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

from evoswarm.errors import UserError
from evoswarm.utility.service.config import Budget, Prices


class Usage(NamedTuple):
    """What answers cost."""

    requests: int = 0
    tokens: int = 0
    money: float = 0.0

    def plus(self, other: Usage) -> Usage:
        """The sum."""
        return Usage(self.requests + other.requests, self.tokens + other.tokens, self.money + other.money)


class Account:
    """Counts requests when they are sent, and tokens and money when the answer tells them."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent = Usage()
        self._sent: Counter[asyncio.Task[Any] | None] = Counter()
        self._unanswered = 0
        self._largest = Usage(requests=1)
        self._in_flight = 0

    def send(self) -> None:
        """Count a request that is sent now.

        Raises:
            UserError: the budget could be exceeded, if this request and those without an answer cost as much as the
                costliest one so far.
        """
        limits = (self.budget.requests, self.budget.tokens, self.budget.money)
        for limit, spent, largest, name in zip(limits, self.spent, self._largest, Usage._fields, strict=True):
            ahead = 1 if name == "requests" else self._in_flight + 1  # requests in flight are counted as spent
            if limit is not None and (spent >= limit or spent + ahead * largest > limit):
                raise UserError(
                    f"utility.limits.budget.{name}: {spent:g} of {limit:g} are spent, and the next request could "
                    f"exceed them; every answer is kept: raise utility.limits.budget.{name} and rerun the command to "
                    "resume"
                )
        self.spent = self.spent.plus(Usage(requests=1))
        self._sent[asyncio.current_task()] += 1
        self._in_flight += 1

    def ended(self) -> None:
        """A request has ended, with or without an answer."""
        self._in_flight -= 1

    def answered(self, usage: Usage) -> Usage:
        """Count what an answer cost, besides its requests.

        Returns:
            The same with the requests that this task has sent for it, and with those that led to no answer before, so
            that the usage of all answers adds up.
        """
        self._add(usage)
        sent, self._unanswered = self._unanswered + self._sent.pop(asyncio.current_task(), 0), 0
        return usage._replace(requests=sent)

    def gave_up(self) -> None:
        """This task sends nothing more: requests of it without an answer are added to the next answer."""
        self._unanswered += self._sent.pop(asyncio.current_task(), 0)

    def recall(self, usage: Usage) -> None:
        """Count what was spent in an earlier part of the run."""
        self._add(usage)

    def _add(self, usage: Usage) -> None:
        self.spent = self.spent.plus(usage)
        largest = self._largest
        self._largest = Usage(1, max(largest.tokens, usage.tokens), max(largest.money, usage.money))


def cost(prices: Prices, *, input_tokens: int = 0, output_tokens: int = 0) -> Usage:
    """The usage of one answered request, apart from the request itself."""
    tokens = input_tokens * prices.input + output_tokens * prices.output
    return Usage(0, input_tokens + output_tokens, prices.request + tokens / 1e6)
