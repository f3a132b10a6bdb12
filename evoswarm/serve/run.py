"""One server: vLLM behind the front, restarted when it dies."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing

import uvicorn

from evoswarm.errors import UserError
from evoswarm.serve.front import Front
from evoswarm.serve.key import key_in
from evoswarm.serve.offer import Offer
from evoswarm.serve.vllm import VllmServer

DEATHS, WITHIN_SECONDS = 3, 600.0
"""If vLLM dies this often within this time, the server ends."""
Say = Callable[[str], None]


def api_key(variable: str | None, *, host: str) -> str | None:
    """The key that clients must send, from an environment variable.

    Raises:
        UserError: the variable is not set, or there is none although other machines can reach the server.
    """
    if variable is not None:
        key = key_in(variable)
        if not key:
            raise UserError(f"--api-key-env {variable}: the environment variable is not set")
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"--api-key-env {variable}: a header cannot carry this key; use ASCII letters and digits")
        return key
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(f"--host {host}: other machines can reach it; name the variable of a key with --api-key-env")
    return None


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded.

    Raises:
        UserError: it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # or another server could still take it; clients wait until the model is loaded
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"--port {port}: cannot be used on {host} ({reason}); choose another --port") from None
    return listener


def serve(offer: Offer, vllm: VllmServer, listener: socket.socket, *, key: str | None, say: Say) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: vLLM does not start, or dies again and again.
    """
    with closing(listener):
        try:
            vllm.start()
            front = Front(offer, vllm, key=key)
            server = uvicorn.Server(uvicorn.Config(front.app, log_level="warning", lifespan="on"))
            watch = _Watch(vllm, front, server, say)
            watch.start()
            say(f"serving {', '.join(offer.names)} at {url_of(listener)}/v1")
            asyncio.run(server.serve(sockets=[listener]))
            watch.end()
        finally:
            vllm.stop()
    if watch.problem:
        raise UserError(watch.problem)


def url_of(listener: socket.socket) -> str:
    """Where clients find the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Watch(threading.Thread):
    """Restarts vLLM when it dies, and ends the server if that does not help."""

    def __init__(self, vllm: VllmServer, front: Front, server: uvicorn.Server, say: Say) -> None:
        super().__init__(daemon=True)
        self._vllm, self._front, self._server, self._say = vllm, front, server, say
        self._ended, self.problem = threading.Event(), ""
        self._deaths: deque[float] = deque(maxlen=DEATHS)

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            if self._vllm.alive:
                continue
            now = time.monotonic()
            self._deaths.append(now)
            if len(self._deaths) == DEATHS and now - self._deaths[0] < WITHIN_SECONDS:
                self._give_up(f"vLLM died {DEATHS} times; see {self._vllm.log}")
                return
            self._say("vLLM died; starting it again")
            try:
                self._vllm.start()
            except UserError as error:
                self._give_up(str(error))
                return
            self._front.restarted()
            self._say("vLLM is up again")

    def _give_up(self, problem: str) -> None:
        self.problem, self._server.should_exit = problem, True
