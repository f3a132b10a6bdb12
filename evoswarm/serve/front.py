"""The OpenAI-compatible front: keys, models by name, the ensemble's vote. All else goes to vLLM unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from evoswarm.errors import UserError
from evoswarm.serve.ensemble import Refused, answer_of, body_of, chunks, voted
from evoswarm.serve.key import has_key
from evoswarm.serve.names import ENSEMBLE, ROUTER
from evoswarm.serve.offer import Offer

RETRY_SECONDS = "5"
"""When a client should ask again while vLLM is restarted."""
_HIDDEN = "lora_adapter"
"""In the paths of calls with which a client could replace a model."""
_HOP = {"host", "authorization", "content-length", "connection", "transfer-encoding"}


class Upstream(Protocol):
    """vLLM's server."""

    url: str
    key: str


class Front:
    """The application; `app` is what an ASGI server runs."""

    def __init__(self, offer: Offer, upstream: Upstream, *, key: str | None) -> None:
        """`key` is what clients must send; None: nothing."""
        self._offer, self._upstream, self._key = offer, upstream, key
        self._loaded, self._loading = set(offer.adapters), asyncio.Lock()
        self.app = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.model),
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/{path:path}", self.other, methods=["GET", "POST"]),
            ],
            lifespan=self._lifespan,
        )

    def restarted(self) -> None:
        """vLLM was started again, so it has forgotten what was loaded later."""
        self._loaded = set(self._offer.adapters)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        async with httpx.AsyncClient(timeout=httpx.Timeout(None, connect=10), limits=limits) as client:
            self._client = client
            yield

    async def health(self, request: Request) -> Response:
        """Whether vLLM answers; needs no key."""
        return await self._forward(request, b"", path="health")

    async def models(self, request: Request) -> Response:
        """The models that are offered from the start, and the particles that were asked for."""
        if refused := self._unauthorized(request):
            return refused
        return JSONResponse({"object": "list", "data": [card(name) for name in self._names]})

    async def model(self, request: Request) -> Response:
        """One of these models."""
        if refused := self._unauthorized(request):
            return refused
        name = request.path_params["name"]
        return JSONResponse(card(name)) if name in self._names else error_response(404, self._no_model(name))

    @property
    def _names(self) -> list[str]:
        return [*self._offer.names, *sorted(self._loaded - set(self._offer.adapters))]

    async def complete(self, request: Request) -> Response:
        """A completion by a model, by the ensemble, or by the model that the router chooses."""
        if refused := self._unauthorized(request):
            return refused
        try:
            body = body_of(await request.body())
            name = str(body.get("model") or self._offer.names[0])
            if name == ENSEMBLE and self._offer.voters:
                return await self._vote(request, body)
            if name == ROUTER and self._offer.router:
                name = await asyncio.to_thread(self._offer.router.choose, body)
            await self._require(name)
            sent = self._offer.request(body, name)
        except Refused as error:
            return error_response(error.status, str(error))
        return await self._forward(request, json.dumps(sent).encode())

    async def other(self, request: Request) -> Response:
        """Any other call of vLLM's server; a model that it names is loaded too."""
        if refused := self._unauthorized(request):
            return refused
        if _HIDDEN in request.path_params["path"]:
            return error_response(404, "adapters are loaded by their names alone: use gen_3/particle_2 as the model")
        content = await request.body()
        try:
            name = _model_in(content)
            if (name == ENSEMBLE and self._offer.voters) or (name == ROUTER and self._offer.router):
                raise Refused(400, f"the {name} answers /v1/chat/completions and /v1/completions alone")
            if name is not None and self._offer.by_request and name != self._offer.model_name:
                raise Refused(400, f"{name} answers /v1/chat/completions and /v1/completions alone")
            if name is not None:
                await self._require(name)
        except Refused as error:
            return error_response(error.status, str(error))
        return await self._forward(request, content)

    def _unauthorized(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if self._key is None or has_key(given, self._key):
            return None
        return error_response(401, "the API key is missing or wrong; send it as `Authorization: Bearer KEY`")

    async def _require(self, name: str) -> None:
        """Load a particle that is asked for for the first time.

        Raises:
            Refused: there is no such model, or vLLM does not take it.
        """
        if name in self._loaded or name in self._offer.names:
            return
        async with self._loading:
            if name in self._loaded:
                return
            try:
                folder = await asyncio.to_thread(self._offer.particle, name)
            except UserError as error:
                raise Refused(404, str(error)) from None
            if folder is None:
                raise Refused(404, self._no_model(name))
            if self._offer.by_request:
                self._loaded.add(name)
                return
            given = {"lora_name": name, "lora_path": str(folder.resolve())}
            try:
                response = await self._client.post(
                    f"{self._upstream.url}/v1/load_lora_adapter", json=given, headers=self._headers({})
                )
            except httpx.HTTPError:
                raise Refused(503, "vLLM is being restarted; ask again") from None
            if response.status_code != 200 and "already" not in response.text:
                raise Refused(400, f"vLLM cannot load {name}: {_message(response)}; see --max-rank")
            self._loaded.add(name)

    def _no_model(self, name: str) -> str:
        more = ", and particles by names like gen_3/particle_2" if self._offer.adapters else ""
        return f"no model {name!r}; there are {', '.join(self._offer.names)}{more}"

    async def _vote(self, request: Request, body: Mapping[str, Any]) -> Response:
        """Ask all voters at once, so that vLLM answers them in one batch, and give the answer of the majority."""
        assert self._offer.read is not None
        url = f"{self._upstream.url}{request.url.path}"
        asked = [answer_of(body, name) for name in self._offer.voters]
        try:
            replies = await asyncio.gather(
                *(self._client.post(url, json=one, headers=self._headers({})) for one in asked)
            )
        except httpx.HTTPError:
            return error_response(503, "vLLM is being restarted; ask again")
        failed = next((reply for reply in replies if reply.status_code != 200), None)
        if failed is not None:
            return Response(failed.content, failed.status_code, media_type="application/json")
        result = voted([reply.json() for reply in replies], self._offer.voters, read=self._offer.read)
        if body.get("stream"):
            return StreamingResponse(iter(chunks(result)), media_type="text/event-stream")
        return JSONResponse(result)

    async def _forward(self, request: Request, body: bytes, *, path: str | None = None) -> Response:
        # As it was sent: a path that is decoded twice would be another one than the path that was checked.
        raw = f"/{path}".encode() if path else request.scope["raw_path"]
        target = httpx.URL(self._upstream.url).copy_with(raw_path=raw)
        headers = self._headers({n: v for n, v in request.headers.items() if n.lower() not in _HOP})
        sent = self._client.build_request(
            request.method, target, content=body, headers=headers, params=request.query_params
        )
        try:
            reply = await self._client.send(sent, stream=True)
        except httpx.HTTPError:
            return error_response(503, "vLLM is being restarted; ask again")
        shown = {name: value for name, value in reply.headers.items() if name.lower() in ("content-type",)}
        return StreamingResponse(_chunks(reply), reply.status_code, shown)

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        return headers | {"authorization": f"Bearer {self._upstream.key}"}


async def _chunks(reply: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in reply.aiter_raw():
            yield chunk
    except httpx.HTTPError:
        pass  # vLLM ended in the middle of an answer: the client sees a stream without its end
    finally:
        await reply.aclose()


def _model_in(content: bytes) -> str | None:
    """The model that the body of a request names."""
    try:
        name = body_of(content).get("model")
    except Refused:
        return None
    return name if isinstance(name, str) else None


def card(name: str) -> dict[str, str]:
    return {"id": name, "object": "model", "owned_by": "evoswarm"}


def error_response(status: int, message: str) -> Response:
    """An error in the form of OpenAI's API."""
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    body = {"error": {"message": message, "type": "invalid_request_error" if status < 500 else "server_error"}}
    return JSONResponse(body, status, headers)


def _message(response: httpx.Response) -> str:
    try:
        found = response.json()
        return str(found.get("message") or found["error"]["message"]).splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        return f"status {response.status_code}"
