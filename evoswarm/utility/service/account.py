"""What a run has spent at a service, and may still spend."""

from __future__ import annotations

from typing import NamedTuple

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
        self._recorded = 0
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
        self._in_flight += 1

    def ended(self) -> None:
        """A request has ended, with or without an answer."""
        self._in_flight -= 1

    def answered(self, usage: Usage) -> Usage:
        """Count what an answer cost, besides its request.

        Returns:
            The same with the requests that were sent since the last answer, so that the usage of all answers adds up.
        """
        self._add(usage)
        sent, self._recorded = self.spent.requests - self._recorded, self.spent.requests
        return usage._replace(requests=sent)

    def recall(self, usage: Usage) -> None:
        """Count what was spent in an earlier part of the run."""
        self._add(usage)
        self._recorded += usage.requests

    def _add(self, usage: Usage) -> None:
        self.spent = self.spent.plus(usage)
        largest = self._largest
        self._largest = Usage(1, max(largest.tokens, usage.tokens), max(largest.money, usage.money))


def cost(prices: Prices, *, input_tokens: int = 0, output_tokens: int = 0) -> Usage:
    """The usage of one answered request, apart from the request itself."""
    tokens = input_tokens * prices.input + output_tokens * prices.output
    return Usage(0, input_tokens + output_tokens, prices.request + tokens / 1e6)
