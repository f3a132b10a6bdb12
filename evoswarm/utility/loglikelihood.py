"""How likely a model finds the references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from evoswarm.utility.data import Example
from evoswarm.utility.prompts import delimiter
from evoswarm.utility.referenced import Referenced, ReferencedUtility
from evoswarm.utility.types import Choose, Outcome, Prompt, Request, Response, Split, Turns


class Loglikelihood(Referenced):
    """Log-likelihood of the reference as a continuation of the prompt (natural logarithm), mean over examples.

    It takes one forward pass per example, and it changes with every weight, where accuracy changes in steps. It is at
    most 0, so multi_task combines it by weighted_sum only.
    """

    type: Literal["loglikelihood"] = "loglikelihood"
    per: Literal["token", "byte", "answer"] = "token"
    """token: divided by the reference's tokens. byte: by its bytes in UTF-8, which compares models of different
    tokenizers. answer: not divided."""


class LoglikelihoodUtility(ReferencedUtility[Loglikelihood]):
    """The mean log-likelihood of the references; of several references of one example, the likeliest counts.

    The end of the answer is not part of it. The metric `perplexity` is exp(-sum of log-likelihoods / sum of tokens or
    bytes) over all examples.

    Raises:
        UserError: a reference is missing.
    """

    config_class = Loglikelihood

    @property
    def negative(self) -> bool:
        return True

    def request(self, example: Example, prompt: Prompt) -> Request:
        space = delimiter(prompt)
        return Choose(prompt, tuple(space + reference for reference in self.references(example)))

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert not isinstance(response, str | Turns)
        example = self._examples[split][index]
        pairs = zip(response, self.references(example), strict=True)
        found = [(option.logprob, self._size(option.tokens, reference)) for option, reference in pairs]
        logprobs = tuple(logprob for logprob, _ in found)
        if not all(map(math.isfinite, logprobs)):
            return Outcome(None, None, f"{example.where}: the log-likelihood of the answer is not a finite number")
        best = max(found, key=lambda pair: pair[0] / pair[1])
        return Outcome(best[0] / best[1], None, logprobs=logprobs, statistics=best)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        if self.config.per == "answer":
            return {}
        loss = -math.fsum(logprob for logprob, _ in statistics) / math.fsum(size for _, size in statistics)
        return {"perplexity": math.exp(min(loss, 700.0))}

    def _size(self, tokens: int, reference: str) -> int:
        return max(1, {"token": tokens, "byte": len(reference.encode()), "answer": 1}[self.config.per])
