"""The base of utilities that score how close a text is to its references."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from evoswarm.utility.referenced import Referenced, ReferencedUtility
from evoswarm.utility.types import Outcome, Response, Split

C = TypeVar("C", bound=Referenced)


class Compared(NamedTuple):
    """The score of one text, 0 to 1, and the statistics from which the metrics of all texts are computed."""

    score: float
    statistics: tuple[float, ...] = ()


class SimilarityUtility(ReferencedUtility[C]):
    """The mean over examples of a score between 0 and 1. The prediction is the whole answer, so there are no votes."""

    @abstractmethod
    def compare(self, text: str, references: Sequence[str]) -> Compared:
        """Score a text; an empty one too."""

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert isinstance(response, str)
        text = response.strip()
        score, statistics = self.compare(text, self.references(self._examples[split][index]))
        return Outcome(score, text, statistics=statistics)
