"""Experts that are mixed with other weights for each prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from evoswarm.engine.base import Verified
from evoswarm.engine.combined.combination import Combination
from evoswarm.engine.combined.transformers import CombinedEngine
from evoswarm.engine.tokenizer import RunTokenizer
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.utility.types import OptionScore, Prompt

Weigh = Callable[["MixtureEngine", Sequence[Prompt]], torch.Tensor]
"""Weights [B, N] of the experts for each prompt; rows sum to 1."""


class MixtureEngine(CombinedEngine):
    """Greedy answers and option scores under p(token) = sum_i w_i p_i(token), with separate weights for each prompt."""

    def __init__(
        self, config: TransformersEngine, *, combination: Combination, tokenizer: RunTokenizer | None = None
    ) -> None:
        """See `CombinedEngine`. Set `weigh` before the first call."""
        self.weigh: Weigh = uniform
        super().__init__(config, combination=combination, tokenizer=tokenizer)

    @property
    def experts(self) -> int:
        """The number of experts, N."""
        return len(self.combination.experts)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """Does nothing: all experts are installed."""

    def _weigh(self, prompts: Sequence[Prompt]) -> None:
        self.use(np.stack([self.combination.weights(row) for row in self.weigh(self, prompts).tolist()]))

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        self._weigh(prompts)
        return super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop)

    def verify(
        self,
        prompts: Sequence[Prompt],
        drafts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> list[Verified]:
        """See `Engine.verify`."""
        self._weigh(prompts)
        return super().verify(prompts, drafts, max_new_tokens=max_new_tokens, stop=stop, logprobs=logprobs)

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`; one prompt at a time, because each has its own weights."""
        found: list[tuple[OptionScore, ...]] = []
        for prompt, line in zip(prompts, options, strict=True):
            self._weigh([prompt])
            found += super().loglikelihood([prompt], [line])
        return found

    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """See `Engine.rolling`. The weights are those of an empty prompt."""
        self._weigh([""])
        return super().rolling(texts)

    @torch.inference_mode()
    def surprise(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Mean negative log-probability of each prompt's tokens under each expert [B, N]; the log of its perplexity."""
        rows = [self._encoder.prompt(prompt) for prompt in prompts]
        result = torch.zeros(len(rows), self.experts)
        for j in range(self.experts):
            self.use(self.combination.weights(np.eye(self.experts)[j]))
            width = max(map(len, rows))
            logprobs = self._network.forward(self._batch(rows, last=width), keep=width).logits.float().log_softmax(-1)
            for i, row in enumerate(rows):
                if len(row) > 1:
                    tokens = torch.tensor(row[1:], device=logprobs.device)[:, None]
                    result[i, j] = -logprobs[i, -len(row) : -1].gather(1, tokens).mean().cpu()
        return result


def uniform(engine: MixtureEngine, prompts: Sequence[Prompt]) -> torch.Tensor:
    """Equal weights for all experts."""
    return torch.full((len(prompts), engine.experts), 1 / engine.experts)
