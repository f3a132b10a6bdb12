"""Hugging Face transformers as an engine, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from evoswarm.config.run import TransformersEngine
from evoswarm.engine.install import Installer
from evoswarm.engine.load import end_tokens, load_model, load_tokenizer
from evoswarm.utility.types import OptionScore, Prompt

Ids = tuple[int, ...]


class HfEngine:
    """A causal language model with its tokenizer.

    A slice is one batch, padded on the left under an attention mask. The slices of a run are fixed (see
    `utility.slices`), so a result does not depend on how many workers share the work.
    """

    def __init__(self, config: TransformersEngine, *, model: str, adapter: Mapping[str, Any] | None) -> None:
        """Load the model and its tokenizer once.

        Raises:
            UserError: either cannot be loaded.
        """
        torch.set_num_threads(config.threads)
        device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = config.batch_size
        self.tokenizer = load_tokenizer(model, config)
        self.model = load_model(model, config).to(device).eval()
        self._end = end_tokens(self.model, self.tokenizer)
        self._installer = Installer(self.model, adapter)
        # The same slices come back for every particle: their token ids are kept.
        self._encode = lru_cache(maxsize=65536)(self._encode_one)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        self._installer.install(weights)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        inputs = self._batch([self._encode(prompt) for prompt in prompts])
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._end,
        )
        output = self.model.generate(**inputs, generation_config=settings)
        texts = self.tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [_cut(text, stop) for text in texts]

    @torch.inference_mode()
    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`.

        Prompt and option are tokenised together, as lm-eval does. Options of one token that follow the same prompt
        are read off one forward pass.
        """
        pairs = [[self._encode_pair(p, option) for option in row] for p, row in zip(prompts, options, strict=True)]
        wanted: dict[Ids, list[Ids]] = {}
        for context, option in (pair for row in pairs for pair in row):
            wanted.setdefault(context + option[:-1], []).append(option)
        found: dict[tuple[Ids, Ids], float] = {}
        inputs = list(wanted)
        for start in range(0, len(inputs), self.batch_size):
            found |= self._score({ids: wanted[ids] for ids in inputs[start : start + self.batch_size]})
        return [tuple(OptionScore(found[c + o[:-1], o], len(o)) for c, o in row) for row in pairs]

    def _score(self, batch: dict[Ids, list[Ids]]) -> dict[tuple[Ids, Ids], float]:
        """Log-probability of each option that ends each input, keyed by (input, option)."""
        longest = max(len(option) for options in batch.values() for option in options)
        logits = self.model(**self._batch(list(batch)), logits_to_keep=longest).logits
        logprobs = torch.log_softmax(logits.float(), dim=-1).cpu()
        return {
            (ids, option): float(rows[-len(option) :].gather(1, torch.tensor(option)[:, None]).sum())
            for (ids, options), rows in zip(batch.items(), logprobs, strict=True)
            for option in options
        }

    def _batch(self, rows: Sequence[Ids]) -> dict[str, torch.Tensor]:
        width = max(len(row) for row in rows)
        ids = [(self.tokenizer.pad_token_id,) * (width - len(row)) + row for row in rows]
        mask = [(0,) * (width - len(row)) + (1,) * len(row) for row in rows]
        device = self.model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }

    def _encode_one(self, prompt: Prompt, option: str = "") -> Ids:
        if isinstance(prompt, str):
            return tuple(self.tokenizer(prompt + option).input_ids)
        messages = [{"role": role, "content": content} for role, content in prompt]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer(text + option, add_special_tokens=False).input_ids)

    def _encode_pair(self, prompt: Prompt, option: str) -> tuple[Ids, Ids]:
        context, whole = self._encode(prompt), self._encode(prompt, option)
        # Where the last token of the prompt joins the option, the option starts earlier: it must have a token.
        split = min(len(context), len(whole) - 1)
        return whole[:split], whole[split:]


def _cut(text: str, stop: Sequence[str]) -> str:
    for end in stop:
        text = text.split(end, 1)[0]
    return text
