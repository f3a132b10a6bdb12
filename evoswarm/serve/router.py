"""The model `router` of a server: the embedding of a prompt decides which of the other models answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np

from evoswarm.config import RunConfig
from evoswarm.engine.encode import Ids
from evoswarm.errors import UserError
from evoswarm.route.embed import Embedder
from evoswarm.route.gate import Gate
from evoswarm.serve.ensemble import Refused
from evoswarm.utility.config import PromptConfig, Task
from evoswarm.utility.prompts import empty_chat
from evoswarm.utility.reasoning import REASONING_TAGS
from evoswarm.utility.types import Chat, Message


class Routing:
    """Chooses a model for each request. Prompts are rendered as the run renders them."""

    def __init__(self, gate: Gate, models: Sequence[str], embedder: Embedder, config: RunConfig) -> None:
        """`models` are the names of the gate's candidates on the server, `config` is that of the run."""
        self._gate, self._models, self._embedder = gate, models, embedder
        settings = config.utility.prompt if isinstance(config.utility, Task) else PromptConfig()
        empty = empty_chat(settings, root=config.root, reasoning_tags=REASONING_TAGS)
        self._chat = Chat(()) if empty is None else empty
        self._lock = Lock()

    def choose(self, body: Mapping[str, Any]) -> str:
        """The name of the model that answers a request.

        Raises:
            Refused: the request has no prompt that can be embedded.
        """
        with self._lock:  # one model, and a tokenizer that is not made for threads
            try:
                embedding = self._embedder.embed(self._ids(body))
            except UserError as error:
                raise Refused(400, str(error)) from None
        return self._models[int(self._gate.choose(embedding[None])[0])]

    def _ids(self, body: Mapping[str, Any]) -> Ids:
        if "messages" in body:
            return self._embedder.ids(self._as_chat(body["messages"], body.get("chat_template_kwargs")))
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            return self._embedder.ids(prompt)
        if isinstance(prompt, list) and prompt and all(type(one) is int for one in prompt):
            return self._embedder.checked(tuple(prompt))
        raise Refused(400, "the router takes one prompt: messages, a text, or a list of token ids")

    def _as_chat(self, messages: Any, variables: Any) -> Chat:
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "messages must be a list of messages")
        known = dict(self._chat.template_kwargs) | (variables if isinstance(variables, dict) else {})
        if not all(isinstance(value, str | int | float | bool | None) for value in known.values()):
            raise Refused(400, "the router takes only texts, numbers and true or false in chat_template_kwargs")
        return replace(
            self._chat, messages=tuple(map(_message, messages)), template_kwargs=tuple(sorted(known.items()))
        )


def _message(message: Any) -> Message:
    """Role and text of a message, whose content may be a list of texts."""
    if isinstance(message, dict):
        role, content = message.get("role"), message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else [None]
        if isinstance(role, str) and all(isinstance(text, str) for text in texts):
            return role, "\n".join(map(str, texts))
    raise Refused(400, "the router reads texts only: every message needs a role and a text as its content")


def constant(gate: Gate) -> bool:
    """Whether all prompts get the same model."""
    return len(gate.bias) == 1 or not np.any(gate.weight - gate.weight[:1])
