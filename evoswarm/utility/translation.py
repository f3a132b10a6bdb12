"""BLEU, chrF and TER as sacrebleu computes them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from evoswarm.errors import not_installed
from evoswarm.utility.referenced import Referenced
from evoswarm.utility.similarity import Compared, SimilarityUtility
from evoswarm.utility.types import Split


class SacreBleu(Referenced):
    """Settings of every metric of sacrebleu."""

    @abstractmethod
    def metric(self, sentence: bool) -> Any:
        """The metric of sacrebleu, for one text or for all texts as one corpus."""


class Bleu(SacreBleu):
    """Sentence BLEU (Papineni et al., 2002), mean over examples; corpus BLEU as a metric."""

    type: Literal["bleu"] = "bleu"
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How texts are split into words: 13a (mteval-v13a), intl (mteval-v14), zh for Chinese, char for languages without
    spaces, none for text that is already split."""
    lowercase: bool = False
    """Ignore case."""

    def metric(self, sentence: bool) -> Any:
        # Without effective_order a sentence of fewer than four words has a score of 0.
        return _sacrebleu().BLEU(tokenize=self.tokenize, lowercase=self.lowercase, effective_order=sentence)


class Chrf(SacreBleu):
    """Sentence chrF (Popovic, 2015), mean over examples; corpus chrF as a metric."""

    type: Literal["chrf"] = "chrf"
    word_order: int = Field(0, ge=0, le=4)
    """Longest n-gram of words: 0 for chrF, 2 for chrF++."""
    char_order: int = Field(6, ge=1, le=12)
    """Longest n-gram of characters."""
    beta: int = Field(2, ge=1)
    """How many times as much recall weighs as precision."""
    lowercase: bool = False
    """Ignore case."""

    def metric(self, sentence: bool) -> Any:
        settings = {"char_order": self.char_order, "word_order": self.word_order, "beta": self.beta}
        return _sacrebleu().CHRF(**settings, lowercase=self.lowercase)


class Ter(SacreBleu):
    """1 - TER (Snover et al., 2006), at least 0, mean over examples; corpus TER (lower is better) as a metric."""

    type: Literal["ter"] = "ter"
    normalized: bool = False
    """Split punctuation off words."""
    no_punct: bool = False
    """Ignore punctuation."""
    asian_support: bool = False
    """Split Chinese and Japanese text into characters. Needs `normalized`."""
    case_sensitive: bool = False
    """Heed case."""

    @model_validator(mode="after")
    def _asian_text_is_normalized(self) -> Self:
        if self.asian_support and not self.normalized:
            raise ValueError("asian_support needs normalized: true; set it, or leave asian_support out")
        return self

    def metric(self, sentence: bool) -> Any:
        settings = {"normalized": self.normalized, "no_punct": self.no_punct, "asian_support": self.asian_support}
        return _sacrebleu().TER(**settings, case_sensitive=self.case_sensitive)


class SacreMetric:
    """A metric of sacrebleu: of one text, and of all texts as one corpus."""

    def __init__(self, make: Callable[[bool], Any], *, lower: bool) -> None:
        """
        Args:
            make: gives the metric for one text (True) or for a corpus.
            lower: less is better.
        """
        self._sentence, self._corpus, self._lower = make(True), make(False), lower

    def compare(self, text: str, references: Sequence[str]) -> Compared:
        """The score of a text, 0 to 1, more is better."""
        # sacrebleu has no public call that gives the statistics; they are what its corpus_score adds up.
        (statistics,) = self._corpus._extract_corpus_statistics([text], [[reference] for reference in references])
        score = self._sentence._aggregate_and_compute([statistics]).score
        share = min(max(score / 100, 0.0), 1.0) if math.isfinite(score) else 0.0
        return Compared(1.0 - share if self._lower else share, tuple(statistics))

    def whole(self, statistics: Sequence[Sequence[float]]) -> float:
        """The metric of all texts, in sacrebleu's unit of 100."""
        return float(self._corpus._aggregate_and_compute([list(s) for s in statistics]).score)


class SacreBleuUtility(SimilarityUtility[SacreBleu]):
    """The mean over examples of a metric of one sentence, 0 to 1.

    Its value over all examples as one corpus, as papers report it, is in `metrics`, in sacrebleu's unit of 100. It is
    exact: computed from the statistics of every example (n-gram counts and lengths, or edits), not from their scores.
    """

    def __init__(self, config: SacreBleu, *, root: Path) -> None:
        self._metric = SacreMetric(config.metric, lower=isinstance(config, Ter))
        super().__init__(config, root=root)

    def compare(self, text: str, references: Sequence[str]) -> Compared:
        return self._metric.compare(text, references)

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        return {self.config.type: self._metric.whole(statistics)}


class BleuUtility(SacreBleuUtility):
    """See `SacreBleuUtility`."""

    config_class = Bleu


class ChrfUtility(SacreBleuUtility):
    """See `SacreBleuUtility`."""

    config_class = Chrf


class TerUtility(SacreBleuUtility):
    """See `SacreBleuUtility`. A text with more edits than its reference has words has a score of 0."""

    config_class = Ter


def _sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError:
        raise not_installed("utility.type bleu, chrf or ter", "sacrebleu", extra="metrics") from None
    return sacrebleu.metrics
