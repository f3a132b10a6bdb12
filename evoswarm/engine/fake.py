"""A deterministic stand-in for a model, for tests and for measuring the loop."""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from evoswarm.engine.base import Engine, Verified
from evoswarm.engine.config import EngineConfig
from evoswarm.section import NonNegative
from evoswarm.utility.types import OptionScore, Prompt

if TYPE_CHECKING:
    from evoswarm.engine.tokenizer import RunTokenizer


class FakeEngine(EngineConfig):
    """Deterministic stand-in for a model that hashes prompt and weights; for tests and for measuring the loop."""

    type: Literal["fake"] = "fake"
    delay: NonNegative = 0
    """Seconds per slice."""

    has_model: ClassVar[bool] = False

    def start(self, *, model: str, adapter: Mapping[str, Any] | None, tokenizer: RunTokenizer | None = None) -> Engine:
        """It needs no model."""
        return EchoEngine(delay=self.delay)


class EchoEngine:
    """Repeats the last word of a prompt, for a share of prompts that grows as the weights' mean approaches 1.

    The prompts' text decides which ones, so a better particle answers a superset of what a worse one answers.
    """

    exact = True

    def __init__(self, *, delay: float = 0) -> None:
        """
        Args:
            delay: seconds per call.
        """
        self.quality = 0.5
        self.tokens: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self._delay = delay

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """Set the quality: 1 at mean 1, 0.5 at mean 0, decreasing with the distance from 1."""
        means = [float(np.mean(array, dtype=np.float64)) for array in weights.values()] if weights else [0.0]
        self.quality = 1 / (1 + (float(np.mean(means)) - 1) ** 2)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The last word, or a question mark."""
        self.tokens.update(read=sum(len(_text(prompt).split()) for prompt in prompts), written=len(prompts))
        time.sleep(self._delay)
        return [_text(prompt).split()[-1] if self._knows(prompt) else "?" for prompt in prompts]

    def verify(
        self,
        prompts: Sequence[Prompt],
        drafts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> list[Verified]:
        """The same as `generate`. A draft's log-odds are how far the quality is above what the prompt needs."""
        replies = self.generate(prompts, max_new_tokens=max_new_tokens, stop=stop)
        odds = [8 * (self.quality - _threshold(prompt)) for prompt in prompts]
        return [
            Verified(r, -math.log1p(math.exp(-o)) if logprobs else None) for r, o in zip(replies, odds, strict=True)
        ]

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """The first option is the most likely one if the prompt is known, else the last one."""
        time.sleep(self._delay)
        return [
            tuple(OptionScore(-float(i if self._knows(prompt) else len(row) - i), 1) for i in range(len(row)))
            for prompt, row in zip(prompts, options, strict=True)
        ]

    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """Each word costs 1 nat at quality 1, and more the lower the quality is."""
        time.sleep(self._delay)
        sizes = [len(text.split()) for text in texts]
        return [OptionScore(-size / self.quality, size) for size in sizes]

    def sleep(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def _knows(self, prompt: Prompt) -> bool:
        return _threshold(prompt) < self.quality


def _threshold(prompt: Prompt) -> float:
    """The quality from which a prompt is known."""
    return zlib.crc32(_text(prompt).encode()) / 2**32


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt.text
