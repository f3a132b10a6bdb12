"""The metrics of lm-eval: a score of one answer, and the value over all of them."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from evoswarm.errors import UserError
from evoswarm.utility.similarity import Compared
from evoswarm.utility.translation import SacreMetric

Aggregate = Callable[[Sequence[Any]], float]


class Metric(ABC):
    """One metric of a task. `higher`: more is better."""

    def __init__(self, name: str, aggregate: Aggregate, *, higher: bool) -> None:
        self.name, self.aggregate, self.higher = name, aggregate, higher

    @property
    def negative(self) -> bool:
        """Whether scores are known to be below 0 at times."""
        return False

    @abstractmethod
    def score(self, value: Any) -> Compared:
        """The score of what lm-eval computes for one document, more is better, and its statistics."""

    def check(self, options: int) -> None:
        """Check that the value over all documents exists, whatever the model chooses among so many options.

        Raises:
            ValueError: it does not.
        """
        return

    @abstractmethod
    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        """lm-eval's value over all documents."""


class Mean(Metric):
    """A mean of numbers. The score is the number, with the other sign if less is better."""

    @property
    def negative(self) -> bool:
        return not self.higher

    def score(self, value: Any) -> Compared:
        number = float(self.aggregate([value]))
        return Compared(number if self.higher else -number, (number,))

    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        return math.fsum(number for (number,) in statistics) / len(statistics)


class Likelihood(Metric):
    """A function of log-likelihoods, which are at most 0."""

    @property
    def negative(self) -> bool:
        return True


class Perplexity(Likelihood):
    """exp(-mean log-likelihood). The score is the log-likelihood."""

    def score(self, value: Any) -> Compared:
        return Compared(float(value), (float(value),))

    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        return float(self.aggregate([value for (value,) in statistics]))


class Weighted(Likelihood):
    """A function of the sum of log-likelihoods over the sum of words or bytes. The score is the ratio of a document."""

    def score(self, value: Any) -> Compared:
        logprob, size = map(float, value)
        return Compared(logprob / max(size, 1.0), (logprob, size))

    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        return float(self.aggregate([tuple(pair) for pair in statistics]))


class Labels(Metric):
    """A function of all pairs of right and chosen label. The score is 1 if they are equal."""

    def score(self, value: Any) -> Compared:
        gold, chosen = map(int, value)
        return Compared(float(gold == chosen), (float(gold), float(chosen)))

    def check(self, options: int) -> None:
        self.whole(list(itertools.product(range(options), repeat=2)))

    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        return float(self.aggregate([(int(gold), int(chosen)) for gold, chosen in statistics]))


class Corpus(Metric):
    """A metric of sacrebleu. The score is that of one text, 0 to 1."""

    def __init__(self, name: str, aggregate: Aggregate, *, higher: bool, kind: str) -> None:
        super().__init__(name, aggregate, higher=higher)
        from sacrebleu.metrics import BLEU, CHRF, TER

        make: dict[str, Callable[[bool], Any]] = {
            "bleu": lambda sentence: BLEU(effective_order=sentence),
            "chrf": lambda sentence: CHRF(),
            "chrf++": lambda sentence: CHRF(word_order=2),
            "ter": lambda sentence: TER(),
        }
        self._metric = SacreMetric(make[kind], lower=kind == "ter")

    def score(self, value: Any) -> Compared:
        reference, text = value
        return self._metric.compare(str(text), [str(reference)])

    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        return self._metric.whole(statistics)


KINDS: dict[str, Callable[..., Metric]] = {
    "mean": Mean,
    "brier_score": Mean,
    "perplexity": Perplexity,
    "weighted_perplexity": Weighted,
    "bits_per_byte": Weighted,
    "f1": Labels,
    "matthews_corrcoef": Labels,
    **{
        kind: lambda *args, kind=kind, **more: Corpus(*args, kind=kind, **more)
        for kind in ("bleu", "chrf", "chrf++", "ter")
    },
}
"""By lm-eval's name of the aggregation."""


def make_metric(task: Any, name: str, *, where: str) -> Metric:
    """The metric of a task.

    Raises:
        UserError: its value over all documents is no function of what is kept of each document.
    """
    from lm_eval.api.registry import get_aggregation

    aggregate = task.aggregation().get(name, get_aggregation("mean"))
    higher = bool(task.higher_is_better().get(name, True))
    for kind, make in KINDS.items():
        if aggregate is get_aggregation(kind):
            return make(name, aggregate, higher=higher)
    raise UserError(
        f"{where}: metric {name} is aggregated by {getattr(aggregate, '__name__', aggregate)}, which is no mean over "
        f"documents; supported are {', '.join(KINDS)}; choose another metric"
    )
