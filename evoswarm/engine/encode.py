"""Prompts, options and drafts as token ids: the same for every engine."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

from transformers import PreTrainedTokenizerBase

from evoswarm.engine.render import CannotRender, Renderer
from evoswarm.errors import UserError
from evoswarm.utility.reasoning import REASONING_TAGS, left_open, opened, options_inside
from evoswarm.utility.types import Chat, Prefix, Prompt

Ids = tuple[int, ...]


class Encoder:
    """A tokenizer for the requests of a run. Token ids are cached, because every particle gets the same slices.

    A prompt starts with what the tokenizer puts before a text (BOS), once, and never ends with what it puts after a
    text (EOS). `notices` says what else the user should know about the prompts.

    `tokens` counts what has been `read` (prompts, options, drafts) and `written` (answers). `special` has the ids of
    special tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        ends: Sequence[int],
        longest: int | None,
        rows: int | None = None,
        tags: Iterable[tuple[str, str]] = (),
    ) -> None:
        """
        Args:
            tokenizer: the tokenizer of the run.
            ends: ids that end an answer.
            longest: the model's maximum number of tokens; None if it is unknown.
            rows: the size of the model's vocabulary, which may be smaller than the tokenizer's; None if it is unknown.
            tags: of reasoning, besides those of known models. Special tokens that are part of one stay in answers.
        """
        self._longest, self._rows = longest, math.inf if rows is None else rows
        self.tokenizer, self.ends = tokenizer, tuple(number for number in ends if number < self._rows)
        self._start = (next(i for i in (tokenizer.bos_token_id, *self.ends, 0) if i is not None),)
        self._renderer = Renderer(tokenizer)
        self._encode = lru_cache(maxsize=65536)(self._encode_one)
        self._opening = lru_cache(maxsize=65536)(self._opening_of)
        self._closing = lru_cache(maxsize=64)(self._closing_of)
        self.ends_of = lru_cache(maxsize=1024)(self._ends_of)
        kept = [tag for pair in (*REASONING_TAGS, *tags) for tag in pair]
        special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        self.special = frozenset(special)
        # A tokenizer may call ordinary text special, such as "!" for padding.
        marked = [token for token in special.values() if len(token) > 2 and re.search(r"[^\w\s]", token)]
        dropped = {token for token in marked if not any(token in tag for tag in kept)}
        self._dropped = re.compile("|".join(map(re.escape, sorted(dropped, key=len, reverse=True))) or "(?!)")
        self.tokens: Counter[str] = Counter()
        self._counted: Prompt | None = None

    @property
    def notices(self) -> list[str]:
        """What the user should know about the prompts encoded so far, one line each."""
        return list(self._renderer.notices)

    def prompt(self, prompt: Prompt) -> Ids:
        """The token ids of a prompt; at least one."""
        ids = self._encode(prompt) or self._start
        self.tokens["read"] += len(ids)
        return ids

    def rendered(self, text: str) -> Ids:
        """The token ids of a chat that is text already."""
        return self._once((), self._plain(text))

    def before_option(self, prompt: Prompt) -> Ids:
        """The token ids of a prompt whose options are not tokenized with it; at least one.

        Raises:
            UserError: the prompt opens the model's reasoning.
        """
        return self._context(prompt) or self._start

    def option(self, prompt: Prompt, option: str) -> tuple[Ids, Ids]:
        """A prompt and its continuation, tokenized together as lm-eval does.

        Raises:
            UserError: the prompt opens the model's reasoning.
        """
        context, whole = self._context(prompt), self._encode(prompt, option)
        # If the last token of the prompt merges with the option, the option starts earlier: it must have a token.
        split = min(len(context), len(whole) - 1)
        # The options of one prompt are encoded one after another; the prompt is counted once.
        self.tokens["read"] += len(whole) - (split if prompt is self._counted else 0)
        self._counted = prompt
        return whole[:split] or self._start, whole[split:]

    def _context(self, prompt: Prompt) -> Ids:
        if tag := self._opening(prompt):
            raise options_inside(tag, self.tokenizer.name_or_path)
        return self._encode(prompt, bare=isinstance(prompt, Chat) and prompt.space_in_options)

    def windows(self, text: str, *, spare: int = 0) -> list[tuple[Ids, Ids]]:
        """A text as pieces that the model has room for: what comes before each of them, and its tokens.

        As lm-eval's loglikelihood_rolling: the first piece, with BOS if the tokenizer puts it there, comes after the
        token that starts a text. Each other piece comes after at least the token before it.

        Args:
            text: anything.
            spare: tokens for which the model must have room besides.
        """
        ids = self._encode(text)
        size = len(ids) if self._longest is None else max(1, self._longest - spare)
        self.tokens["read"] += len(ids)
        later = ((start, min(start + size, len(ids))) for start in range(size, len(ids), size))
        first = [(self._start, ids[:size])] if ids else []
        return first + [(ids[end - size - 1 : start], ids[start:end]) for start, end in later]

    def draft(self, prompt: Prompt, draft: str) -> tuple[Ids, Ids]:
        """A prompt and its draft; the draft is empty if its first token merges with the prompt."""
        context, whole = self.prompt(prompt), self._encode(prompt, draft)
        tail = whole[len(context) :] if whole[: len(context)] == context else ()
        self.tokens["read"] += len(tail)
        return context, tail

    def text(self, prompt: Prompt, tokens: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Generated tokens as text without special tokens, cut at the first complete stop string.

        Tags of reasoning stay, and the one that a chat's prompt opens comes first, so that reasoning can be recognized.
        """
        last = self._length(tokens, stop)
        self.tokens["written"] += last
        ended = last > 0 and tokens[last - 1] in self.ends_of(tuple(stop))
        text = cut(self._decode(tokens[:last]), stop)
        if ended:  # a stop string may begin in the name of the end token
            text = min(self._decode(tokens[: last - 1]), text, key=len)
        return self._opening(prompt) + self.clean(text)

    def answered(self, prompt: Prompt, text: str, stop: Sequence[str]) -> str:
        """What was written after a prompt, as `text` returns it."""
        return self._opening(prompt) + cut(text, stop)

    def reply(self, prompt: Prompt, tokens: Sequence[int], *, max_new_tokens: int, stop: Sequence[str]) -> str | Prefix:
        """The first tokens of a greedy answer as text: the whole answer if it ends with them, else a prefix."""
        last = self._length(tokens, stop)
        text, ended = self._decode(tokens[:last]), last > 0 and tokens[last - 1] in self.ends_of(tuple(stop))
        if ended or len(tokens) >= max_new_tokens or any(end in text for end in stop):
            return self.text(prompt, tokens, stop)
        self.tokens["written"] += last
        return Prefix(self._opening(prompt) + self.clean(text[: len(text) - _begun(text, stop)]))

    def _length(self, tokens: Sequence[int], stop: Sequence[str]) -> int:
        """Tokens up to the first that ends the answer, including it."""
        ends = self.ends_of(tuple(stop))
        return next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))

    def _ends_of(self, stop: tuple[str, ...]) -> Ids:
        """Ids that end an answer: the model's own, and those of stop strings that are one token."""
        found = [(end, self.tokenizer.convert_tokens_to_ids(end)) for end in stop]
        ids = [number for end, number in found if number is not None and self._decode([number]) == end]
        return tuple(dict.fromkeys([*self.ends, *(number for number in ids if number < self._rows)]))

    def last_tokens(self, draft: Ids, stop: Sequence[str], *, limit: int) -> Ids:
        """The tokens of which one must follow the draft so that it is the whole answer.

        They are the end tokens and those that begin with a stop string or are the start of one; for a draft that fills
        the limit, its own token there.

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
        return tuple(
            dict.fromkeys([*self.ends_of(stop), *(i for i, text in enumerate(texts) if text and _opens(text, stop))])
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, including special tokens."""
        raw = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(tokens), spaces_between_special_tokens=False, **raw))

    def clean(self, text: str) -> str:
        """A text without special tokens."""
        return self._dropped.sub("", text)

    def _opening_of(self, prompt: Prompt) -> str:
        """The tag of reasoning that a chat's prompt opens. Those of plain text are the utility's matter."""
        if isinstance(prompt, str) or prompt.begun:
            return ""
        text, before = self._chat(prompt), self._chat(prompt, answer=False)
        if len(before) < len(text) and text.startswith(before):
            return left_open(text[len(before) :], prompt.reasoning_tags)
        return opened(text, prompt.reasoning_tags)

    def room(self, width: int, asked: int) -> int:
        """How many tokens can be generated after `width` tokens: `asked`, or what the model has room for.

        Raises:
            UserError: the model has room for none.
        """
        self.check(width, more=1)
        return asked if self._longest is None else min(asked, self._longest - width)

    def check(self, width: int, *, more: int = 0) -> None:
        """
        Raises:
            UserError: `width` tokens and `more` of an answer are too many for the model.
        """
        if self._longest is not None and width + more > self._longest:
            takes = f"{self._longest}{' with the first of the answer' if more else ''}"
            raise UserError(
                f"{self.tokenizer.name_or_path}: a prompt has {width} tokens, the model takes {takes}; shorten "
                "the prompts, use fewer few-shot examples, or use a model with a longer context"
            )

    def _encode_one(self, prompt: Prompt, option: str = "", *, bare: bool = False) -> Ids:
        """The ids of a prompt and its continuation; `bare`: without white space at the end of a chat."""
        if isinstance(prompt, str):
            ids = self._once(self._added, self._plain(prompt + option))
        else:
            text = self._chat(prompt)
            ids = self.rendered((text.rstrip() if bare else text) + option)
        if unknown := next((number for number in ids if number >= self._rows), None):
            raise UserError(
                f"{self.tokenizer.name_or_path}: a prompt has token {unknown} ({self._decode([unknown])!r}), and "
                f"the base model's vocabulary has only {self._rows}; set `model` to a copy of the base model with the "
                "vocabulary that the experts were trained with (resize_token_embeddings, save_pretrained)"
            )
        return ids

    def _plain(self, text: str) -> Ids:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _once(self, start: Ids, ids: Ids) -> Ids:
        """A text after what starts it (BOS), which the text itself may already have."""
        first = start or self._bos
        ids = start + ids
        while first and ids[: 2 * len(first)] == first * 2:
            ids = ids[len(first) :]
            self._renderer.notices[f"prompts would start with {self._decode(first)} twice; it is used once"] = None
        return ids

    @property
    def _bos(self) -> Ids:
        return () if self.tokenizer.bos_token_id is None else (self.tokenizer.bos_token_id,)

    @cached_property
    def _added(self) -> Ids:
        """What the tokenizer puts before a text."""
        text = next((c for c in "aA0 " if self._plain(c)), "")
        plain, whole = self._plain(text), tuple(self.tokenizer(text).input_ids)
        places = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return whole[: next(places, 0)]

    def _chat(self, chat: Chat, *, answer: bool = True) -> str:
        turns = [{"role": role, "content": content} for role, content in chat.messages]
        variables = dict(chat.template_kwargs)
        try:
            text = self._renderer.text(turns, prompt=answer, variables=variables, template=chat.template)
        except CannotRender as problem:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template cannot be used ({problem}); set "
                "utility.prompt.chat_template: false, or the path of another template"
            ) from None
        if not chat.begun:
            return text
        return text + chat.begun.removeprefix(self._opening(replace(chat, begun="")))


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the stop string that is completed first when the text is read from left to right."""
    found = [(text.index(end) + len(end), text.index(end)) for end in stop if end in text]
    return text[: min(found)[1]] if found else text


def _opens(text: str, stop: Sequence[str]) -> bool:
    """Whether a token's text begins with a stop string, or is the start of one."""
    return any(text.startswith(end) or end.startswith(text) for end in stop)


def _begun(text: str, stop: Sequence[str]) -> int:
    """How many of the last characters can be the start of a stop string."""
    lengths = (n for end in stop for n in range(1, len(end)) if text.endswith(end[:n]))
    return max(lengths, default=0)
