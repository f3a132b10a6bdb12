"""Removes a thinking model's reasoning from a generated text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evoswarm.errors import UserError

Tags = Sequence[tuple[str, str]]
REASONING_TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, GLM, MiniMax
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel|>commentary<|message|>", "<|channel|>final<|message|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
    ("<unused94>thought", "<unused95>"),  # MedGemma
)
"""Opening and closing tags of known models."""
_FRAME = re.compile(
    r"<\|(?:return|end|start|START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution)\|>"
    r"|\[END FINAL RESPONSE\]|</?(?:answer|response)>",
    re.IGNORECASE,
)
"""What frames the answer after the reasoning."""
_UNMARKED = re.compile(r"analysis(?=[A-Z\W]).*?assistantfinal(.*)", re.DOTALL)
"""gpt-oss's channels, decoded without special tokens."""


def without_reasoning(text: str, tags: Tags = REASONING_TAGS) -> str:
    """The text outside of reasoning; empty if the reasoning does not end.

    Text before a closing tag without an opening one is reasoning: the prompt has opened it. Case does not count.
    """
    opening = {start.lower(): end.lower() for start, end in tags}
    closing = {end.lower() for _, end in tags}
    if not opening:
        return text
    if unmarked := _UNMARKED.fullmatch(text):
        return unmarked[1].strip()
    pattern = re.compile("|".join(re.escape(tag) for tag in sorted({*opening, *closing}, key=len, reverse=True)), re.I)
    parts: list[str] = []
    awaited: set[str] | None = None
    begin = 0
    for match in pattern.finditer(text):
        tag = match[0].lower()
        if awaited is None and tag in opening:
            parts.append(text[begin : match.start()])
            awaited = {opening[tag]}
        elif awaited is None:
            parts, begin = [], match.end()
        elif tag in awaited:
            awaited, begin = None, match.end()
    if begin == 0 and awaited is None and not parts:
        return text
    if awaited is not None:
        return ""
    outside = (part.strip() for part in [*parts, text[begin:]])  # on lines of their own, or 4 and 6 would be 46
    return _FRAME.sub("", "\n".join(part for part in outside if part)).strip()


def may_reason(prefix: str, tags: Tags = REASONING_TAGS) -> bool:
    """Whether an answer with this prefix starts with an opening tag, or may still do so."""
    start = prefix.lstrip().lower()
    return any(start.startswith(tag.lower()) or tag.lower().startswith(start) for tag, _ in tags)


def opened(prompt: str, tags: Tags = REASONING_TAGS) -> str:
    """The opening tag at the end of a prompt, after which a model starts with its reasoning; or nothing."""
    end = prompt.rstrip().lower()
    return next((tag for tag, _ in tags if end.endswith(tag.lower())), "")


def left_open(text: str, tags: Tags = REASONING_TAGS) -> str:
    """The opening tag of reasoning that does not end in this start of an answer; or nothing.

    Example:
        left_open("<|im_start|>assistant\n<think>\nOkay, ") == "<think>"
    """
    last = max(((text.lower().rfind(tag.lower()), tag, end) for tag, end in tags), default=(-1, "", ""))
    place, tag, end = last
    return tag if place >= 0 and end.lower() not in text[place:].lower() else ""


def options_inside(tag: str, where: str) -> UserError:
    """The error for options that would be scored inside of reasoning."""
    return UserError(
        f"{where}: the prompt opens the reasoning with {tag}, so options would be scored inside of it; set "
        "utility.prompt.chat_template_kwargs: {enable_thinking: false} if the chat template supports it, or "
        "utility.method: generate"
    )
