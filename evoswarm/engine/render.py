"""Renders chats with a chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from transformers import PreTrainedTokenizerBase

from evoswarm.errors import first_line

Messages = Sequence[Mapping[str, Any]]
_PROBE = "2718281828"
TODAY = date(2024, 7, 26)
"""The date in prompts of templates that write today's date: that of Llama 3.1's template if it is told none. With the
real date a result would change from day to day."""


class CannotRender(Exception):
    """The template refuses the messages, or a variable has no effect. The text is the reason."""


class Renderer:
    """Renders messages with the tokenizer's chat template, or with another one.

    Templates differ in what they take. If one refuses messages or loses the text of one, it gets them in another form
    that says the same: a system message at the start of the user's (Gemma, older Mistral), several user messages as
    one, or contents as lists of parts (image-text models). A template that never starts the assistant's turn gets what
    it puts before an answer. `notices` says what was done.
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
            CannotRender: the template refuses every form, leaves out the last message, or does not use a variable.
        """
        starts = "add_generation_prompt" in self._require(variables, template)
        reason, kept = "", None
        for form, notice in _forms(messages):
            try:
                text = self._apply(form, prompt, variables, template)
            except Exception as error:  # a template can raise anything
                reason = reason or first_line(error)
                continue
            if all(_shows(text, message) for message in messages):
                self.notices |= {notice: None} if notice else {}
                return text if starts or not prompt else text + self._start(form, text, variables, template)
            kept = kept or (form, text)
        if kept is None:
            raise CannotRender(reason)
        form, text = kept
        if self._apply(_with_last(form, "?"), prompt, variables, template) == text:
            raise CannotRender(f"it leaves out the last message, {str(messages[-1]['content'])[:40]!r}")
        self.notices["the chat template changes or leaves out the text of some messages"] = None
        return text

    def _start(self, form: Messages, text: str, variables: Mapping[str, Any], template: str | None) -> str:
        """What a template that does not start the assistant's turn puts before an answer; nothing if only space."""
        answer = {"role": "assistant", "content": _with_last(form, _PROBE)[-1]["content"]}
        try:
            whole = self._apply([*form, answer], False, variables, template)
        except Exception:  # a template can raise anything
            return ""
        start = whole[len(text) :].partition(_PROBE)[0] if whole.startswith(text) and _PROBE in whole else ""
        if start.strip():
            self.notices[f"the chat template does not start the model's turn, so {start!r} is added"] = None
        return start if start.strip() else ""

    def _apply(self, messages: Messages, prompt: bool, variables: Mapping[str, Any], template: str | None) -> str:
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            **({"strftime_now": TODAY.strftime} | dict(variables)),
        )
        return str(text)

    def _require(self, variables: Mapping[str, Any], template: str | None) -> str:
        """The template in use."""
        if not self._tokenizer.chat_template and template is None:
            raise CannotRender("the tokenizer has none")
        try:
            used = self._tokenizer.get_chat_template(template)
        except ValueError as error:
            raise CannotRender(first_line(error)) from None
        for name in variables:
            if not re.search(rf"\b{re.escape(name)}\b", used):
                raise CannotRender(f"it does not use {name}; remove it from chat_template_kwargs")
        return used


def _forms(messages: Messages) -> Iterator[tuple[Messages, str | None]]:
    """The same messages in different forms, and what to say about them."""
    one = joined(messages)
    notice = "the chat template does not take a system message, so it is put at the start of the user's message"
    if len(one) == len(messages) or messages[0]["role"] != "system":
        notice = "the chat template does not take several user messages in a row, so they are joined"
    whole: list[tuple[Messages, str | None]] = [(messages, None)]
    if one != list(messages):
        whole.append((one, notice))
    yield from whole
    for form, why in whole:
        yield [{**m, "content": _parts(m["content"])} for m in form], why


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _with_last(form: Messages, text: str) -> Messages:
    """The messages with another text in the last one."""
    content = text if isinstance(form[-1]["content"], str) else _parts(text)
    return [*form[:-1], {**form[-1], "content": content}]


def joined(messages: Messages) -> list[Mapping[str, Any]]:
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
