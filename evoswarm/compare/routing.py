"""Weights of experts for a prompt, from the texts that each was trained on.

Source: c-BTM (arXiv 2303.14177): tf-idf and a truncated SVD, weights exp(-distance^2 / T) of the nearest few experts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoswarm.errors import UserError, not_installed
from evoswarm.utility.readers import read
from evoswarm.utility.types import Prompt

if TYPE_CHECKING:
    import torch

DIMENSIONS = 100
NEAREST = 4
MOST_TEXTS = 20_000
"""Texts used per expert, from the start of its file."""
_FIELDS = ("question", "prompt", "instruction", "text")


@dataclass
class Router:
    """Centers of the experts' training texts in the space of tf-idf and SVD. Vectors have length 1."""

    embed: Any
    centers: np.ndarray
    temperature: float
    digest: str

    @classmethod
    def of(cls, training: Mapping[str, Path], *, temperature: float) -> Router:
        """Read the training texts of every expert and embed them.

        Raises:
            UserError: a file is missing or has no text, or scikit-learn is not installed.
        """
        try:
            from sklearn.decomposition import TruncatedSVD
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import Normalizer
        except ImportError:
            raise not_installed("cbtm", "scikit-learn", extra="compare") from None
        texts = {name: read_texts(path) for name, path in training.items()}
        every = [text for lines in texts.values() for text in lines]
        vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
        try:
            size = min(DIMENSIONS, len(vectorizer.fit(every).vocabulary_) - 1)
        except ValueError:  # no words
            size = 0
        if size < 1:
            raise UserError(
                "cbtm: the texts of compare.training have fewer than two different words, too few for routing"
            )
        embed = make_pipeline(vectorizer, TruncatedSVD(size, random_state=0), Normalizer()).fit(every)
        centers = np.stack([embed.transform(lines).mean(axis=0) for lines in texts.values()])
        digest = hashlib.sha256(json.dumps([list(texts.items()), temperature]).encode()).hexdigest()
        return cls(embed, centers, temperature, digest)

    def weigh(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Weights [B, N] of the experts for each prompt."""
        import torch

        texts = (p if isinstance(p, str) else p.text for p in prompts)
        vectors = self.embed.transform(texts)
        distances = ((vectors[:, None] - self.centers[None]) ** 2).sum(axis=-1)
        far = distances > np.sort(distances, axis=1)[:, [min(NEAREST, distances.shape[1]) - 1]]
        logits = np.where(far, -np.inf, -distances / self.temperature)
        return torch.from_numpy(logits).float().softmax(dim=-1)


def read_texts(path: Path) -> list[str]:
    """The questions of a JSONL file of training examples.

    Raises:
        UserError: it is missing, or has no questions.
    """
    texts = [text for record in training_records(path)[:MOST_TEXTS] if (text := _text(record))]
    if not texts:
        raise UserError(f"{path}: no record has a text under one of {', '.join(_FIELDS)} or messages")
    return texts


def training_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file of training examples.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; compare.training needs one JSONL file per expert")
    records = list(read(path).records)
    if not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path}: every line must be an object of named fields")
    return records


def _text(record: Mapping[str, Any]) -> str:
    messages = record.get("messages")
    if isinstance(messages, list):
        return " ".join(str(m.get("content", "")) for m in messages if isinstance(m, dict) and m.get("role") == "user")
    return next((str(record[key]) for key in _FIELDS if record.get(key)), "")
