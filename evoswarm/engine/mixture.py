"""An engine that mixes the next-token distributions of several experts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import CausalLMOutput

from evoswarm.engine.base import Verified
from evoswarm.engine.tokenizer import RunTokenizer
from evoswarm.engine.transformers import HfEngine
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.utility.types import OptionScore, Prompt

Weigh = Callable[["MixtureEngine", Sequence[Prompt]], torch.Tensor]
"""Weights [B, N] of the experts for each prompt; rows sum to 1."""


class MixtureEngine(HfEngine):
    """Greedy answers and option scores under p(token) = sum_i w_i p_i(token), with separate weights for each prompt.

    Memory: one copy per expert of the parameters that experts adapt; other parameters are shared. Free generation
    recomputes the whole text for each token; drafts are verified in one pass.
    """

    def __init__(
        self,
        config: TransformersEngine,
        *,
        model: str,
        adapter: Mapping[str, Any] | None,
        experts: Iterable[Mapping[str, np.ndarray]],
        tokenizer: RunTokenizer | None = None,
    ) -> None:
        """Load the base model once, and one copy of the adapted parameters per expert.

        Raises:
            UserError: the model cannot be loaded, or an expert does not fit it.
        """
        super().__init__(config, model=model, adapter=adapter, tokenizer=tokenizer)
        self._branches = False
        self._models = [self._copy_with(weights) for weights in experts]
        super().install(None)
        self.weigh: Weigh = uniform
        self._now = torch.empty(0)

    def _copy_with(self, weights: Mapping[str, np.ndarray]) -> Any:
        """A model with an expert's weights that shares all other parameters with the base model."""
        super().install(weights)
        shared = {n: p for n, p in self.model.named_parameters() if n not in self._installer.adapted}
        return copy.deepcopy(self.model, {id(parameter): parameter for parameter in shared.values()})

    @property
    def experts(self) -> int:
        """The number of experts, N."""
        return len(self._models)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """Does nothing: all experts are installed."""

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        self._now = self.weigh(self, prompts)
        rows = [self._encoder.prompt(prompt) for prompt in prompts]
        answers: list[tuple[int, ...]] = [()] * len(rows)
        open_, ends = set(range(len(rows))), self._encoder.ends_of(tuple(stop))
        for _ in range(self._encoder.room(max(map(len, rows)), max_new_tokens)):
            inputs = self._batch([row + answer for row, answer in zip(rows, answers, strict=True)])
            chosen = self._forward(inputs, keep=1).logits[:, -1].argmax(-1).tolist()
            for i in sorted(open_):
                answers[i] += (chosen[i],)
                if chosen[i] in ends:
                    open_.discard(i)
            if not open_:
                break
        return [self._encoder.text(prompt, answer, stop) for prompt, answer in zip(prompts, answers, strict=True)]

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
        self._now = self.weigh(self, prompts)
        return super().verify(prompts, drafts, max_new_tokens=max_new_tokens, stop=stop, logprobs=logprobs)

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`; one prompt at a time, because each has its own weights."""
        found: list[tuple[OptionScore, ...]] = []
        for prompt, line in zip(prompts, options, strict=True):
            self._now = self.weigh(self, [prompt])
            found += super().loglikelihood([prompt], [line])
        return found

    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """See `Engine.rolling`. The weights are those of an empty prompt."""
        self._now = self.weigh(self, [""])
        return [score for text in texts for score in super().rolling([text])]

    @torch.inference_mode()
    def surprise(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Mean negative log-probability of each prompt's tokens under each expert [B, N]; the log of its perplexity."""
        rows = [self._encoder.prompt(prompt) for prompt in prompts]
        width = max(map(len, rows))
        inputs = self._batch(rows, last=width)
        result = torch.zeros(len(rows), self.experts)
        for j, model in enumerate(self._models):
            logprobs = torch.log_softmax(self._one(model, inputs, keep=width).logits.float(), -1)
            for i, row in enumerate(rows):
                if len(row) > 1:
                    tokens = torch.tensor(row[1:], device=logprobs.device)[:, None]
                    result[i, j] = -logprobs[i, -len(row) : -1].gather(1, tokens).mean().cpu()
        return result

    def _forward(self, inputs: dict[str, Any], *, keep: int, use_cache: bool = False) -> Any:
        weights = self._now.to(self.model.device, torch.float32)
        mixed: torch.Tensor | None = None
        for j, model in enumerate(self._models):
            if not bool((weights[:, j] > 0).any()):
                continue
            logprobs = torch.log_softmax(self._one(model, inputs, keep=keep).logits.float(), -1)
            term = logprobs + weights[:, j].log()[:, None, None]
            mixed = term if mixed is None else torch.logaddexp(mixed, term)
        return CausalLMOutput(logits=mixed)

    def _one(self, model: Any, inputs: dict[str, Any], *, keep: int) -> Any:
        base, self.model = self.model, model
        try:
            return super()._forward(inputs, keep=keep)
        finally:
            self.model = base


def uniform(engine: MixtureEngine, prompts: Sequence[Prompt]) -> torch.Tensor:
    """Equal weights for all experts."""
    return torch.full((len(prompts), engine.experts), 1 / engine.experts)
