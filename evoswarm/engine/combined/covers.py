"""The distribution of a text's next byte, from a model's distributions of tokens.

Source: exact byte-level probabilities (2410.09303, cover encodings; 2506.14123). Tokens cover a text x if they write
it, and the last of them begins within x and ends with x or after it. p(x) is the sum over the covers of the product of
their tokens' probabilities, and p(b | x) = p(xb) / p(x). Here the tokens before the last one are, for every prefix of
x, those of one encoding: the likeliest of the covers that end with the prefix, which for trained models is nearly
always the tokenizer's own. It costs one pass of the model per byte, and is known within a character too.

- Exact where a text has only one encoding with any probability, such as in vocabularies of single characters.
- Approximate otherwise: the mass of other encodings is left out, and p(b | x) is normalized over what is left. What is
  left is a lower bound of p(xb), and the distribution of the next symbol has the sum 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evoswarm.engine.combined.token_bytes import ByteVocabulary
from evoswarm.engine.encode import Ids

END = 256
"""The symbol after the bytes: the answer ends."""


@dataclass(frozen=True)
class Start:
    """A place in the text where a token can begin.

    Attributes:
        path: the tokens before it.
        total: their log-probability.
        logprobs: of the tokens after them [V], in the order of the vocabulary.
        end: the probability that the answer ends there.
    """

    path: Ids
    total: float
    logprobs: np.ndarray
    end: float


class Covers:
    """The covers of a text that grows byte by byte, of one model.

    Attributes:
        text: the bytes so far.
        path: the tokens that write them; None if no tokens end there.
    """

    def __init__(self, vocabulary: ByteVocabulary, *, ends: Sequence[int], most: int) -> None:
        """`ends` are the tokens that end an answer, and `most` is the number of tokens that it can have."""
        self._vocabulary, self._ends, self._most = vocabulary, list(ends), most
        self.text = b""
        self.path: Ids | None = ()
        self._total = 0.0
        self._starts: dict[int, Start] = {}

    @property
    def open(self) -> Ids | None:
        """`path`, if another token can come after it."""
        return self.path if self.path is not None and len(self.path) < self._most else None

    def read(self, logprobs: np.ndarray) -> None:
        """Take the log-probabilities of the token after `path`, by their ids."""
        assert self.path is not None
        end = float(np.exp(logprobs[self._ends].astype(float)).sum())
        self._starts[len(self.text)] = Start(self.path, self._total, logprobs[self._vocabulary.ids], end)

    def probabilities(self) -> np.ndarray:
        """p(symbol | text) [257]; zeros if no cover goes on."""
        masses = np.full((len(self._starts) + 1, END + 1), -np.inf)
        for row, (place, start) in zip(masses, self._starts.items(), strict=False):
            found = self._vocabulary.beginning(self.text[place:])
            weights = np.exp(start.logprobs[found.longer].astype(float))
            each = np.bincount(found.following, weights, minlength=END + 1)
            if place == len(self.text):
                each[END] = start.end
            with np.errstate(divide="ignore"):
                row[:] = start.total + np.log(each)
        joint = np.logaddexp.reduce(masses)
        highest = joint.max()
        if np.isneginf(highest):
            return np.zeros(END + 1)
        shares = np.exp(joint - highest)
        return np.asarray(shares / shares.sum())

    def append(self, byte: int) -> None:
        """Let the text go on with a byte."""
        self.text += bytes([byte])
        ending: list[tuple[float, Ids]] = []
        for place, start in list(self._starts.items()):
            found = self._vocabulary.beginning(self.text[place:])
            if not found:
                del self._starts[place]
            for i in found.equal:
                ending.append((start.total + float(start.logprobs[i]), (*start.path, int(self._vocabulary.ids[i]))))
        self._total, self.path = max(ending, default=(0.0, None))
