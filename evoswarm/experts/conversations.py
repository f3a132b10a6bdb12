"""Reads conversations of the formats of OpenAI (role, content) and ShareGPT (from, value)."""

from __future__ import annotations

from typing import Any

from evoswarm.errors import UserError

Message = dict[str, Any]
"""role, content, and `weight` 0 if an answer is not in the loss"""
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "observation": "tool",
    "developer": "system",
}
"""ShareGPT's and OpenAI's names of roles, by their names in chat templates."""
KNOWN = ("system", "user", "assistant", "tool")


def conversation(turns: Any, name: str, where: str) -> tuple[Message, ...]:
    """The messages of one record.

    Args:
        turns: a list of objects with role and content, or from and value.
        name: of the field, for messages.
        where: file and number of the record.

    Raises:
        UserError: it is no conversation, or has tool calls.
    """
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where}: {name} must be a list of messages, not {type(turns).__name__}")
    return tuple(_message(turn, where) for turn in turns)


def _message(turn: Any, where: str) -> Message:
    fields = turn if isinstance(turn, dict) else {}
    role, content = (
        (fields.get("from"), fields.get("value")) if "from" in fields else map(fields.get, ("role", "content"))
    )
    if fields.get("tool_calls") or role == "function_call":
        raise UserError(f"{where}: has tool calls, which are not supported; remove the record")
    if fields.get("reasoning_content") or fields.get("thinking"):
        raise UserError(
            f"{where}: a message has its reasoning in a field of its own, which is not supported; put it into the "
            "content, as <think>...</think>, or remove it"
        )
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise UserError(f"{where}: a message needs role and content, or from and value, as text, not {str(turn)[:80]}")
    role = ROLES.get(role.lower(), role.lower())
    if role not in KNOWN:
        raise UserError(f"{where}: unknown role {role!r}; use one of {', '.join((*KNOWN, *ROLES))}")
    return {"role": role, "content": whole(content, where)} | ({"weight": 0} if fields.get("weight") == 0 else {})


def whole(text: str, where: str) -> str:
    """The text, if it is valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: contains half a character ({text[error.start]!a}); fix the text") from None
    return text
