"""Renders chats with a chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from evoswarm.errors import first_line

Messages = Sequence[Mapping[str, Any]]
TODAY = date(2024, 7, 26)
"""The date in prompts of templates that write today's date: that of Llama 3.1's template if it is told none. With the
real date a result would change from day to day."""


class CannotRender(Exception):
    """The template refuses the messages, or a variable has no effect. The text is the reason."""


class Renderer:
    """Renders messages with the tokenizer's chat template, or with another one.

    Templates differ in what they take. If one refuses messages or loses the text of one, it gets them in another form
    that says the same: a system message at the start of the user's (Gemma, older Mistral), several user messages as
    one, or contents as lists of parts (image-text models). `notices` says what was done.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.notices: dict[str, None] = {}

    def text(
        self, messages: Messages, *, prompt: bool, variables: Mapping[str, Any], template: str | None = None
    ) -> str:
        """The messages as text.

        Args:
            messages: objects with role and content.
            prompt: end with the start of the assistant's turn.
            variables: for the template, such as enable_thinking.
            template: None for the tokenizer's own.

        Raises:
            CannotRender: the template refuses every form, or does not use a variable.
        """
        self._require(variables, template)
        reason, kept = "", None
        for form, notice in _forms(messages):
            try:
                text = self._apply(form, prompt, variables, template)
            except Exception as error:  # a template can raise anything
                reason = reason or first_line(error)
                continue
            if all(_shows(text, message) for message in messages):
                self.notices |= {notice: None} if notice else {}
                return text
            kept = kept or text
        if kept is None:
            raise CannotRender(reason)
        self.notices["the chat template changes or leaves out the text of some messages"] = None
        return kept

    def _apply(self, messages: Messages, prompt: bool, variables: Mapping[str, Any], template: str | None) -> str:
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            **({"strftime_now": TODAY.strftime} | dict(variables)),
        )
        return str(text)

    def _require(self, variables: Mapping[str, Any], template: str | None) -> None:
        if not self._tokenizer.chat_template and template is None:
            raise CannotRender("the tokenizer has none")
        try:
            used = self._tokenizer.get_chat_template(template)
        except ValueError as error:
            raise CannotRender(first_line(error)) from None
        for name in variables:
            if not re.search(rf"\b{re.escape(name)}\b", used):
                raise CannotRender(f"it does not use {name}; remove it from chat_template_kwargs")


def _forms(messages: Messages) -> Iterator[tuple[Messages, str | None]]:
    """The same messages in different forms, and what to say about them."""
    joined = _joined(messages)
    notice = "the chat template does not take a system message, so it is put at the start of the user's message"
    if len(joined) == len(messages) or messages[0]["role"] != "system":
        notice = "the chat template does not take several user messages in a row, so they are joined"
    whole: list[tuple[Messages, str | None]] = [(messages, None)]
    if joined != list(messages):
        whole.append((joined, notice))
    yield from whole
    for form, why in whole:
        yield [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in form], why


def _joined(messages: Messages) -> list[Mapping[str, Any]]:
    """System messages as messages of the user, and neighboring messages of the user as one."""
    result: list[Mapping[str, Any]] = []
    for message in messages:
        message = {**message, "role": "user"} if message["role"] == "system" else message
        if result and message["role"] == result[-1]["role"] == "user":
            message = {**message, "content": f"{result.pop()['content']}\n\n{message['content']}"}
        result.append(message)
    return result


def _shows(text: str, message: Mapping[str, Any]) -> bool:
    """Whether a rendered text has a message's. Templates may drop the reasoning from the assistant's."""
    return message["role"] == "assistant" or str(message["content"]).strip() in text
