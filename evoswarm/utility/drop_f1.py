"""Exact match and F1 of DROP, between the spans of an answer and those of a reference.

Dua et al., 2019, "DROP: A Reading Comprehension Benchmark Requiring Discrete Reasoning Over Paragraphs", arXiv
1903.00161. The values are those of its official script and of lm-evaluation-harness.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def drop_scores(found: Sequence[str], expected: Sequence[str]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 (0 to 1, rounded to two digits) of two lists of spans, each of at least one.

    Spans are paired so that the sum of their F1 is highest; a span without a partner counts 0. Words count once. A pair
    whose reference has numbers counts only if they share one.
    """
    from scipy.optimize import linear_sum_assignment  # takes a while to import

    ours, theirs = list(map(normalized_span, found)), list(map(normalized_span, expected))
    exact = float(set(ours) == set(theirs) and len(ours) == len(theirs))
    scores = np.array([[_f1(set(one.split()), set(other.split())) for one in ours] for other in theirs])
    pairs = linear_sum_assignment(-scores)
    each = np.zeros(max(scores.shape))
    each[pairs[0]] = scores[pairs]
    return exact, round(float(np.mean(each)), 2)


def normalized_span(text: str) -> str:
    """Lower case, without articles and punctuation; numbers as floats (5 is 5.0)."""
    tokens = (" ".join(_ARTICLES.sub(" ", _token(token)).split()) for token in re.split(" |-", text.lower()))
    return " ".join(token for token in tokens if token)


def _token(token: str) -> str:
    text = token if _is_number(token) else token.translate(_PUNCTUATION)
    return str(float(text)) if _is_number(text) else text


def _f1(found: set[str], expected: set[str]) -> float:
    numbers = set(filter(_is_number, expected))
    if numbers and not numbers & found:
        return 0.0
    common = len(found & expected)
    precision = common / len(found) if found else 1.0
    recall = common / len(expected) if expected else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
