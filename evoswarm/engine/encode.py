"""Prompts, options and drafts as token ids: the same for every engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from evoswarm.engine.errors import first_line
from evoswarm.errors import UserError
from evoswarm.utility.reasoning import REASONING_TAGS, opened
from evoswarm.utility.types import Chat, Prefix, Prompt

Ids = tuple[int, ...]


class Encoder:
    """A tokenizer for the requests of a run. Token ids are cached, because every particle gets the same slices.

    `tokens` counts what has been `read` (prompts, options, drafts) and `written` (answers).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, ends: Sequence[int], longest: int | None) -> None:
        """
        Args:
            tokenizer: the base model's tokenizer.
            ends: ids that end an answer.
            longest: the model's maximum number of tokens; None if it is unknown.
        """
        self.tokenizer, self.ends = tokenizer, tuple(ends)
        self._longest = longest
        self._start = (next(i for i in (tokenizer.bos_token_id, *self.ends, 0) if i is not None),)
        self._encode = lru_cache(maxsize=65536)(self._encode_one)
        self._opening = lru_cache(maxsize=65536)(self._opening_of)
        self._closing = lru_cache(maxsize=64)(self._closing_of)
        # Magistral's and gpt-oss's tags of reasoning are special tokens.
        tags = {tag for pair in REASONING_TAGS for tag in pair}
        special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        self._dropped = {i for i, token in special.items() if not any(token in tag for tag in tags)}
        self.tokens: Counter[str] = Counter()
        self._counted: Prompt | None = None

    def prompt(self, prompt: Prompt) -> Ids:
        """The token ids of a prompt; at least one."""
        ids = self._encode(prompt) or self._start
        self.tokens["read"] += len(ids)
        return ids

    def option(self, prompt: Prompt, option: str) -> tuple[Ids, Ids]:
        """A prompt and its continuation, tokenized together as lm-eval does.

        Raises:
            UserError: the prompt opens the model's reasoning.
        """
        if tag := self._opening(prompt):
            raise UserError(
                f"{self.tokenizer.name_or_path}: the prompt ends in {tag}, so options would be scored inside of the "
                "reasoning; set utility.prompt.chat_template_kwargs: {enable_thinking: false} if the chat template "
                "supports it, or utility.method: generate"
            )
        context, whole = self._encode(prompt), self._encode(prompt, option)
        # If the last token of the prompt merges with the option, the option starts earlier: it must have a token.
        split = min(len(context), len(whole) - 1)
        # The options of one prompt are encoded one after another; the prompt is counted once.
        self.tokens["read"] += len(whole) - (split if prompt is self._counted else 0)
        self._counted = prompt
        return whole[:split] or self._start, whole[split:]

    def draft(self, prompt: Prompt, draft: str) -> tuple[Ids, Ids]:
        """A prompt and its draft; the draft is empty if its first token merges with the prompt."""
        context, whole = self.prompt(prompt), self._encode(prompt, draft)
        tail = whole[len(context) :] if whole[: len(context)] == context else ()
        self.tokens["read"] += len(tail)
        return context, tail

    def text(self, prompt: Prompt, tokens: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Generated tokens as text without special tokens, cut at the first complete stop string.

        Tags of reasoning stay, and the one that ends the prompt is put first, so that reasoning can be recognized.
        """
        last = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        self.tokens["written"] += last
        return self._opening(prompt) + cut(self._decode(tokens), stop)

    def reply(self, prompt: Prompt, tokens: Sequence[int], *, max_new_tokens: int, stop: Sequence[str]) -> str | Prefix:
        """The first tokens of a greedy answer as text: the whole answer if it ends with them, else a prefix."""
        last = next((i for i, token in enumerate(tokens) if token in self.ends), None)
        self.tokens["written"] += len(tokens) if last is None else last + 1
        text = self._decode(tokens if last is None else tokens[: last + 1])
        if last is not None or len(tokens) >= max_new_tokens or any(end in text for end in stop):
            return self._opening(prompt) + cut(text, stop)
        return Prefix(self._opening(prompt) + text[: len(text) - _begun(text, stop)])

    def last_tokens(self, draft: Ids, stop: Sequence[str], *, limit: int) -> Ids:
        """The tokens of which one must follow the draft so that it is the whole answer.

        They are the end tokens and those that begin with a stop string; for a draft that fills the limit, its own token
        there.

        Args:
            draft: token ids.
            stop: strings that end an answer.
            limit: the most tokens of an answer.
        """
        return self._closing(tuple(stop)) if len(draft) < limit else draft[limit - 1 : limit]

    def _closing_of(self, stop: tuple[str, ...]) -> Ids:
        if not stop:
            return self.ends
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        return tuple(dict.fromkeys([*self.ends, *(i for i, text in enumerate(texts) if text.startswith(stop))]))

    def _decode(self, tokens: Sequence[int]) -> str:
        kept = [i for i in tokens if i not in self._dropped]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _opening_of(self, prompt: Prompt) -> str:
        return opened(self._rendered(prompt))

    def _rendered(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self._chat(prompt)

    def room(self, width: int, asked: int) -> int:
        """How many tokens can be generated after `width` tokens: `asked`, or what the model has room for.

        Raises:
            UserError: the prompt alone is too long for the model.
        """
        self.check(width)
        # The last generated token is not fed back.
        return asked if self._longest is None else min(asked, self._longest - width + 1)

    def check(self, width: int) -> None:
        """
        Raises:
            UserError: `width` tokens are too many for the model.
        """
        if self._longest is not None and width > self._longest:
            raise UserError(
                f"{self.tokenizer.name_or_path}: a prompt has {width} tokens, the model takes {self._longest}; shorten "
                "the prompts, use fewer few-shot examples, or use a model with a longer context"
            )

    def _encode_one(self, prompt: Prompt, option: str = "") -> Ids:
        text = self._rendered(prompt) + option
        return tuple(self.tokenizer(text, add_special_tokens=isinstance(prompt, str)).input_ids)

    def _chat(self, chat: Chat) -> str:
        turns = [{"role": role, "content": content} for role, content in chat.messages]
        template = self.tokenizer.chat_template
        for name, _ in chat.template_kwargs:
            if isinstance(template, str) and not re.search(rf"\b{re.escape(name)}\b", template):
                raise UserError(
                    f"{self.tokenizer.name_or_path}: the tokenizer's chat template does not use {name}; remove it from "
                    "utility.prompt.chat_template_kwargs"
                )
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **dict(chat.template_kwargs)
            )
        except (ValueError, TemplateError) as error:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the tokenizer's chat template cannot be used ({first_line(error)}); "
                "set utility.chat_template: false, or remove what the template does not support"
            ) from None
        return str(text)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the stop string that is completed first when the text is read from left to right."""
    found = [(text.index(end) + len(end), text.index(end)) for end in stop if end in text]
    return text[: min(found)[1]] if found else text


def _begun(text: str, stop: Sequence[str]) -> int:
    """How many of the last characters can be the start of a stop string."""
    lengths = (n for end in stop for n in range(1, len(end)) if text.endswith(end[:n]))
    return max(lengths, default=0)
