"""Texts as the token ids that a scoring model reads: the same for every engine."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from transformers import PretrainedConfig

from evoswarm.engine.encode import Ids
from evoswarm.engine.render import CannotRender, Renderer
from evoswarm.engine.tokenizer import load_tokenizer
from evoswarm.errors import UserError
from evoswarm.utility.scoring import Exchange, ScoringModel
from evoswarm.utility.templates import read_template

UNLIMITED = 10**9
"""A tokenizer without a limit says a larger number."""
PROBE = Exchange("1618033988", "2718281828")


class TooLong(Exception):
    """A text has more tokens than the model takes. The text is the reason."""


@dataclass(frozen=True)
class Encoded:
    """A text for the model.

    Attributes:
        ids: token ids, at least one.
        types: which of a pair's texts each token is part of (token_type_ids); empty if the model is not told.
        cut: whether only a part of the text is in it.
    """

    ids: Ids
    types: Ids
    cut: bool = False


class TextEncoder:
    """A model's tokenizer with its chat template.

    A chat is rendered without the start of an answer and encoded without special tokens, which are part of the
    template. Models that read the score at a token of its own (`reward_token_id`, InternLM2) get it at the end. Causal
    models are read at the last token that is not padding, so that padding tokens at the end of a text are removed.
    """

    def __init__(self, settings: ScoringModel, config: PretrainedConfig) -> None:
        """Load the tokenizer.

        Raises:
            UserError: it cannot be loaded, or its chat template is missing or leaves out the answer.
        """
        self._settings = settings
        self.tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
        text, whole = config.get_text_config(), config.to_dict()
        self._pad = text.pad_token_id
        self._end: Ids = () if whole.get("reward_token_id") is None else (int(whole["reward_token_id"]),)
        self.longest = _longest(settings, text, self.tokenizer.model_max_length)
        self._template = None if settings.chat_template is None else read_template(settings.chat_template)
        self._renderer = Renderer(self.tokenizer)
        self._plain = {"chat": self._chat, "pair": self._pair, "answer": self._answer}[settings.input]
        if settings.input == "chat":
            self._require_template()

    def length(self, text: str) -> int:
        """Tokens of a text with the special tokens that the tokenizer adds, as Model Swarms counts them."""
        return len(self.tokenizer(text).input_ids)

    def encode(self, text: Exchange) -> Encoded:
        """A text for the model.

        Raises:
            TooLong: it has too many tokens, and may not be cut or cannot be cut enough.
        """
        whole = self._plain(text)
        if len(whole.ids) <= self.longest:
            return whole
        if self._settings.too_long == "fail":
            raise TooLong(f"{len(whole.ids)} tokens, the model takes {self.longest} (too_long: cut reads a part)")
        return replace(self._plain(self._shortened(text)), cut=True)

    def _shortened(self, text: Exchange) -> Exchange:
        """The text with as much of it as fits: the end of the question, or the start of an answer alone."""
        shorter: Callable[[int], Exchange]
        if self._settings.input == "answer":
            most = len(text.answer)
            shorter = lambda n: replace(text, answer=text.answer[: most - n])  # noqa: E731
        else:
            most = len(text.question)
            shorter = lambda n: replace(text, question=text.question[n:])  # noqa: E731
        fits = bisect_left(range(most + 1), True, key=lambda n: len(self._plain(shorter(n)).ids) <= self.longest)
        if fits > most:
            raise TooLong(f"the answer alone has more tokens than the {self.longest} that the model takes")
        return shorter(fits)

    def _chat(self, text: Exchange) -> Encoded:
        ids = self.tokenizer(self._rendered(text), add_special_tokens=False).input_ids
        return Encoded(self._readable(ids), ())

    def _rendered(self, text: Exchange) -> str:
        roles = {"system": text.system, "user": text.question, "assistant": text.answer}
        messages = [{"role": role, "content": content} for role, content in roles.items() if content is not None]
        try:
            return self._renderer.text(messages, prompt=False, variables={}, template=self._template)
        except CannotRender as problem:
            raise UserError(
                f"{self._settings.model}: the chat template cannot be used ({problem}); {_OTHERWISE}"
            ) from None

    def _pair(self, text: Exchange) -> Encoded:
        question = text.question if text.system is None else f"{text.system}\n\n{text.question}"
        return self._special(self.tokenizer(question, text.answer))

    def _answer(self, text: Exchange) -> Encoded:
        return self._special(self.tokenizer(text.answer))

    def _special(self, found: Any) -> Encoded:
        return Encoded(self._readable(found["input_ids"]), tuple(found.get("token_type_ids", ())))

    def _readable(self, ids: list[int]) -> Ids:
        while ids and ids[-1] == self._pad:
            ids = ids[:-1]
        start = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0)
        return (*ids, *self._end) or (next(i for i in start if i is not None),)

    def _require_template(self) -> None:
        if self._template is None and not self.tokenizer.chat_template:
            raise UserError(f"{self._settings.model}: the tokenizer has no chat template; {_OTHERWISE}")
        if PROBE.answer not in self._rendered(PROBE):
            raise UserError(f"{self._settings.model}: the chat template leaves out the answer; {_OTHERWISE}")


_OTHERWISE = "set chat_template to the path of a Jinja file, or input: pair for a model that reads pairs of texts"


def _longest(settings: ScoringModel, config: PretrainedConfig, tokenizer_limit: int) -> int:
    """The most tokens of a text."""
    limits = [settings.max_length, config.to_dict().get("max_position_embeddings"), tokenizer_limit]
    if "roberta" in config.model_type and limits[1]:  # its positions start after that of padding
        limits[1] -= (config.pad_token_id or 0) + 1
    return min(limit for limit in (*limits, UNLIMITED) if limit)
