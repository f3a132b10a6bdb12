"""The application of a mix: chooses among the `options` of a completion. It writes no text of its own."""

from __future__ import annotations

import asyncio
import time
import uuid
from calendar import timegm
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from evoswarm.errors import UserError
from evoswarm.serve.ensemble import Refused, body_of, chunks
from evoswarm.serve.front import card, error_response
from evoswarm.serve.key import has_key
from evoswarm.serve.offer import WINNER
from evoswarm.utility import Chat, Choose
from evoswarm.utility.prompts import delimiter
from evoswarm.utility.types import Prompt

MOST = 64
"""Requests that are answered together."""
_ROLES = ("system", "user", "assistant")


class Chooser(Protocol):
    """What answers."""

    def probabilities(self, requests: Sequence[Choose]) -> list[np.ndarray]:
        """P(option) [options] of each request."""


class OptionsFront:
    """The application; `app` is what an ASGI server runs. Requests that wait are answered together."""

    def __init__(self, model: Chooser, *, chat: Chat, key: str | None) -> None:
        """`chat` has the settings of chats in the run; `key` is what clients must send, None: nothing."""
        self._model, self._chat, self._key = model, chat, key
        self._waiting: list[tuple[Choose, asyncio.Future[np.ndarray]]] = []
        self._busy = asyncio.Lock()
        self.app = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
            ]
        )

    async def health(self, request: Request) -> Response:
        """The models are loaded; needs no key."""
        return Response(status_code=200)

    async def models(self, request: Request) -> Response:
        """The mix as one model."""
        return self._unauthorized(request) or JSONResponse({"object": "list", "data": [card(WINNER)]})

    async def chat(self, request: Request) -> Response:
        """Choose the answer of a chat."""
        return self._unauthorized(request) or await self._answer(request, self._conversation)

    async def complete(self, request: Request) -> Response:
        """Choose the continuation of a text."""
        return self._unauthorized(request) or await self._answer(request, _text)

    def _unauthorized(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if self._key is None or has_key(given, self._key):
            return None
        return error_response(401, "the API key is missing or wrong; send it as `Authorization: Bearer KEY`")

    async def _answer(self, request: Request, prompt_of: Any) -> Response:
        try:
            body = body_of(await request.body())
            _require_winner(body)
            options, prompt = _options(body), prompt_of(body)
            space = delimiter(prompt)
            chosen = Choose(prompt, tuple(space + option for option in options))
            found = await self._probabilities(chosen)
        except Refused as error:
            return error_response(error.status, str(error))
        except UserError as error:
            return error_response(400, str(error))
        reply = _reply(options, found, chat=prompt_of is not _text)
        if body.get("stream"):
            return StreamingResponse(iter(chunks(reply)), media_type="text/event-stream")
        return JSONResponse(reply)

    async def _probabilities(self, choose: Choose) -> np.ndarray:
        """Wait for the models, which answer all that is waiting in one pass."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((choose, future))
        async with self._busy:
            if not future.done():
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._pass(batch)
        return await future

    async def _pass(self, batch: list[tuple[Choose, asyncio.Future[np.ndarray]]]) -> None:
        """Answer a batch; if a request cannot be answered, each one alone."""
        try:
            found = await asyncio.to_thread(self._model.probabilities, [choose for choose, _ in batch])
        except Exception as error:  # an engine may raise anything: only its requests fail
            if len(batch) == 1:
                batch[0][1].set_exception(error if isinstance(error, UserError) else Refused(500, str(error)))
                return
            for one in batch:
                await self._pass([one])
            return
        for (_, future), values in zip(batch, found, strict=True):
            future.set_result(values)

    def _conversation(self, body: Mapping[str, Any]) -> Prompt:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "messages must be a list of {role, content}")
        return replace(self._chat, messages=tuple(map(_message, messages)))


def _message(message: Any) -> tuple[str, str]:
    if (
        not isinstance(message, dict)
        or message.get("role") not in _ROLES
        or not isinstance(message.get("content"), str)
    ):
        raise Refused(400, f"each message needs a role ({', '.join(_ROLES)}) and a content that is text")
    return message["role"], message["content"]


def _text(body: Mapping[str, Any]) -> Prompt:
    if not isinstance(body.get("prompt"), str):
        raise Refused(400, "prompt must be one text")
    return str(body["prompt"])


def _require_winner(body: Mapping[str, Any]) -> None:
    if (name := body.get("model")) not in (None, WINNER):
        raise Refused(404, f"no model {name!r}; there is {WINNER}, a mix of models")
    if body.get("n") not in (None, 1) or body.get("tools"):
        raise Refused(400, "a mix chooses one of the options, and takes no n or tools")


def _options(body: Mapping[str, Any]) -> list[str]:
    options = body.get("options")
    if not isinstance(options, list) or not all(isinstance(one, str) and one for one in options):
        raise Refused(
            400,
            "this model is a mix of models that chooses among options and writes no text; send `options`, a list of at "
            "least two texts (with the openai client: extra_body={'options': [...]})",
        )
    if len(set(options)) < max(2, len(options)):
        raise Refused(400, "options must be at least two different texts")
    return options


def _reply(options: Sequence[str], found: np.ndarray, *, chat: bool) -> dict[str, Any]:
    """The likeliest option, the first of equal ones, as a completion. `evoswarm` has the probability of each."""
    text = options[int(np.argmax(found))]
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "id": f"choice-{uuid.uuid4().hex}",
        "object": "chat.completion" if chat else "text_completion",
        "created": timegm(time.gmtime()),  # shown to clients alone
        "model": WINNER,
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **said}],
        "evoswarm": {"probabilities": dict(zip(options, (found / found.sum()).tolist(), strict=True))},
    }
