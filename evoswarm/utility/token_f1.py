"""F1 of words, as in SQuAD."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from evoswarm.utility.data import Example
from evoswarm.utility.referenced import Referenced
from evoswarm.utility.similarity import Compared, SimilarityUtility
from evoswarm.utility.task import refuse
from evoswarm.utility.types import Split

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TokenF1(Referenced):
    """F1 of the words of answer and reference as in SQuAD (Rajpurkar et al., 2016), mean over examples.

    Case, punctuation and articles do not count. Of several references the best counts. The metric `exact_match` is the
    share of answers that equal a reference after this normalization.
    """

    type: Literal["token_f1"] = "token_f1"


class TokenF1Utility(SimilarityUtility[TokenF1]):
    """The mean F1, 0 to 1.

    Raises:
        UserError: a reference has nothing but articles and punctuation, so that an empty answer would equal it.
    """

    config_class = TokenF1

    def prepare(self, example: Example) -> Example:
        example = super().prepare(example)
        for reference in self.references(example):
            if not _words(reference):
                raise refuse(example, f"answer {reference[:40]!r} has no words besides articles; use exact_match")
        return example

    def compare(self, text: str, references: Sequence[str]) -> Compared:
        words = _words(text)
        known = [_words(reference) for reference in references]
        return Compared(max(_f1(words, other) for other in known), (float(words in known),))

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        return {"exact_match": math.fsum(exact for (exact,) in statistics) / len(statistics)}


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _f1(found: Sequence[str], expected: Sequence[str]) -> float:
    """F1 of two bags of words; two empty ones are equal."""
    if not found or not expected:
        return float(found == expected)
    common = sum((Counter(found) & Counter(expected)).values())
    return 2 * common / (len(found) + len(expected))
