"""ROUGE as the package rouge-score computes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from evoswarm.errors import not_installed
from evoswarm.utility.data import Example
from evoswarm.utility.referenced import Referenced
from evoswarm.utility.similarity import Compared, SimilarityUtility
from evoswarm.utility.task import refuse


class Rouge(Referenced):
    """F-measure of ROUGE (Lin, 2004), mean over examples; of several references the best counts."""

    type: Literal["rouge"] = "rouge"
    variant: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rougeL"
    """rouge1 and rouge2: words and pairs of words. rougeL: the longest common subsequence; rougeLsum: of each line."""
    stemmer: bool = False
    """Compare the stems of words (English)."""


class RougeUtility(SimilarityUtility[Rouge]):
    """The mean F-measure, 0 to 1.

    Raises:
        UserError: a reference has no Latin letters or digits, which are all that rouge-score reads.
    """

    config_class = Rouge

    def __init__(self, config: Rouge, *, root: Path) -> None:
        self._scorer = _scorer(config)
        super().__init__(config, root=root)

    def prepare(self, example: Example) -> Example:
        example = super().prepare(example)
        for reference in self.references(example):
            if not self._scorer._tokenizer.tokenize(reference):
                raise refuse(example, f"answer {reference[:40]!r} has no Latin letters or digits for rouge; use chrf")
        return example

    def compare(self, text: str, references: Sequence[str]) -> Compared:
        return Compared(float(self._scorer.score_multi(references, text)[self.config.variant].fmeasure))


def _scorer(config: Rouge) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise not_installed("utility.type rouge", "rouge-score", extra="metrics") from None
    return RougeScorer([config.variant], use_stemmer=config.stemmer)
