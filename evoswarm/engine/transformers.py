"""Hugging Face transformers as an engine, on CPU or GPU."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from transformers import GenerationConfig

from evoswarm.config.run import TransformersEngine
from evoswarm.engine.install import Installer
from evoswarm.engine.load import end_tokens, first_line, load_model, load_tokenizer
from evoswarm.errors import UserError
from evoswarm.utility.types import Message, OptionScore, Prompt

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
        # Penalties and beams that come with a model would make its answers something else than greedy.
        self.model.generation_config = GenerationConfig()
        self._positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self._longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self._start = (next(i for i in (self.tokenizer.bos_token_id, *self._end, 0) if i is not None),)
        self._installer = Installer(self.model, adapter)
        # The same slices come back for every particle: their token ids are kept.
        self._encode = lru_cache(maxsize=65536)(self._encode_one)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        self._installer.install(weights)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        inputs = self._batch([self._encode(prompt) or self._start for prompt in prompts])
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._end or None,
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
        inputs = self._batch(list(batch))
        if self._positions:  # models with absolute positions must not count the padding; `generate` does this itself
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits = self.model(**inputs, logits_to_keep=longest).logits
        keys, sums = [], []
        for (ids, options), row in zip(batch.items(), logits, strict=True):
            logprobs = torch.log_softmax(row.float(), dim=-1)
            for option in options:
                tokens = torch.tensor(option, device=row.device)[:, None]
                keys.append((ids, option))
                sums.append(logprobs[-len(option) :].gather(1, tokens).sum())
        return dict(zip(keys, torch.stack(sums).tolist(), strict=True))

    def _batch(self, rows: Sequence[Ids]) -> dict[str, torch.Tensor]:
        width = max(len(row) for row in rows)
        if self._longest is not None and width > self._longest:
            raise UserError(
                f"{self.model.name_or_path}: a prompt has {width} tokens, the model takes {self._longest}; shorten the "
                "prompts, give fewer few-shot examples, or take a model with a longer context"
            )
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
        return tuple(self.tokenizer(self._chat(prompt) + option, add_special_tokens=False).input_ids)

    def _chat(self, messages: Sequence[Message]) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except (ValueError, TemplateError) as error:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the tokenizer's chat template cannot be used ({first_line(error)}); "
                "set utility.chat_template: false, or leave out what the template does not know"
            ) from None
        return str(text)

    def _encode_pair(self, prompt: Prompt, option: str) -> tuple[Ids, Ids]:
        context, whole = self._encode(prompt), self._encode(prompt, option)
        # Where the last token of the prompt joins the option, the option starts earlier: it must have a token.
        split = min(len(context), len(whole) - 1)
        return whole[:split] or self._start, whole[split:]


def _cut(text: str, stop: Sequence[str]) -> str:
    for end in stop:
        text = text.split(end, 1)[0]
    return text
