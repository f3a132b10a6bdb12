"""Renders examples as prompts.

Plain text follows lm-eval: solved examples, then the question, joined by the separator; an answer follows its question
after one space, or directly if the question ends in white space. With a chat template, solved examples are user and
assistant turns, `answer_prefix` ends the user turn, and the answer is the assistant turn. Solved examples that the file
provides as text precede the question unchanged; in a chat they are in the user turn.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.utility.choices import read_choices
from evoswarm.utility.config import PromptConfig
from evoswarm.utility.data import Example, resolve
from evoswarm.utility.reasoning import Tags
from evoswarm.utility.templates import read_template
from evoswarm.utility.types import Chat, Message, Prompt


def template_fields(template: str, *, key: str = "prompt.template") -> list[str]:
    """Names of the fields in a template, in order. `key` names the setting in messages.

    Raises:
        UserError: it is not a Python format string over named fields.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{key} {template!r} is broken: {error}; write literal braces as {{{{ }}}}") from None
    names = [name.split(".")[0].split("[")[0] for _, name, _, _ in parts if name is not None]
    if any(not name or name.isdecimal() for name in names):
        raise UserError(f"{key} {template!r} has a field without name; write literal braces as {{{{ }}}}")
    return names


def with_choices(template: str) -> str:
    """Add the lettered options, unless the template already has `{choices}`.

    They go on separate lines at the end, or before text that follows the last field on a new line ("\\nAnswer:").
    """
    if "choices" in template_fields(template):
        return template
    tail = ""
    for literal, name, _, _ in reversed(list(string.Formatter().parse(template))):
        if name is not None:
            break
        tail = literal.replace("{", "{{").replace("}", "}}") + tail
    if not tail.startswith("\n"):
        return template + "\n{choices}"
    return template.removesuffix(tail) + "\n{choices}" + tail


def render(template: str, example: Example, *, key: str = "prompt.template") -> str:
    """Fill the template with the example's fields; `{choices}` becomes lines such as `A. text`. A record without a
    question, but with a `prompt`, has that as its question (the instructions of Model Swarms).

    `key` names the setting in messages.

    Raises:
        UserError: the example does not have a field of the template, or the field cannot be formatted.
    """
    fields = dict(example.fields)
    if "question" not in fields and "prompt" in fields:
        fields["question"] = fields["prompt"]
    names = template_fields(template, key=key)
    for name in names:
        if fields.get(name) is None:
            state = "is null" if name in fields else "is missing"
            raise UserError(
                f"{example.where}: {key} names {{{name}}}, which {state}; "
                f"the record has {', '.join(map(str, example.fields))}; correct the template or map the field with "
                "data.columns"
            )
    try:
        if "choices" in names:
            fields["choices"] = read_choices(fields["choices"]).lettered()
        return template.format_map(fields)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{example.where}: {key} {template!r} does not fit this record: {error}") from None


def delimiter(prompt: Prompt) -> str:
    """The text between a prompt and its answer: a space for plain text that does not end in white space."""
    return " " if isinstance(prompt, str) and prompt and not prompt[-1].isspace() else ""


def continued(prompt: Prompt, start: str) -> Prompt:
    """A prompt with the start of its answer."""
    if isinstance(prompt, Chat):
        return replace(prompt, begun=start)
    return prompt + (delimiter(prompt) if start and not start[0].isspace() else "") + start


def compose(
    settings: PromptConfig,
    question: str,
    *,
    shots: Sequence[tuple[str, str]] = (),
    shot_text: str | None = None,
    chat: Chat | None = None,
) -> Prompt:
    """The complete prompt for one rendered question.

    `shots` are the solved examples as (rendered template, answer), `shot_text` are those of the file as formatted text.
    `chat` is a chat without messages, with the settings of all chats.
    """
    asked = [(text + settings.answer_prefix, answer) for text, answer in shots]
    question += settings.answer_prefix
    first = [] if shot_text is None else [shot_text]
    if chat is None:
        solved = [text + delimiter(text) + answer for text, answer in asked]
        return settings.separator.join([*first, *solved, question])
    messages: list[Message] = [] if settings.system is None else [("system", settings.system)]
    for text, answer in asked:
        messages += [("user", text), ("assistant", answer)]
    messages.append(("user", settings.separator.join([*first, question])))
    return replace(chat, messages=tuple(messages))


def empty_chat(settings: PromptConfig, *, root: Path, reasoning_tags: Tags) -> Chat | None:
    """A chat without messages, with everything else; None for plain text.

    Raises:
        UserError: the chat template's file cannot be read.
    """
    if settings.chat_template is False:
        return None
    path = settings.chat_template
    template = None if path is True else read_template(resolve(path, root))
    variables = tuple(sorted(settings.chat_template_kwargs.items()))
    return Chat((), variables, template, tuple((start, end) for start, end in reasoning_tags))
