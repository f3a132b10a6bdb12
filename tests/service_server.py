"""A real HTTP server in a thread, whose answers are a Python function."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a server answers: JSON, or text as it is."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Server:
    """What a server was asked: bodies of POST in order, and the headers of the last request in lower case."""

    url: str
    bodies: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    at_once: int = 0
    """Most requests at the same time."""
    times: list[float] = field(default_factory=list)
    on_request: Callable[[int], object] = lambda number: None
    """Called with the number of each request before it is answered."""


@contextmanager
def serve(answer: Callable[[Any, int], Reply | Any], *, models: list[str] | None = None) -> Iterator[Server]:
    """Serve `answer(body, number of the request)` until the end of the block."""
    lock, open_now = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal open_now
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                server.bodies.append(body)
                server.headers = {name.lower(): value for name, value in self.headers.items()}
                server.times.append(time.monotonic())
                number, open_now = len(server.bodies), open_now + 1
                server.at_once = max(server.at_once, open_now)
            server.on_request(number)
            reply = answer(body, number)
            reply = reply if isinstance(reply, Reply) else Reply(reply)
            time.sleep(reply.delay)
            with lock:
                open_now -= 1
            self.write(reply)

        def do_GET(self) -> None:
            listed = {"data": [{"id": model} for model in models or []]}
            self.write(Reply(listed) if models is not None else Reply("none", 404))

        def write(self, reply: Reply) -> None:
            text = reply.content if isinstance(reply.content, str) else json.dumps(reply.content)
            kind = "text/html" if isinstance(reply.content, str) else "application/json"
            self.send_response(reply.status)
            for name, value in ({"content-type": kind, "content-length": len(text.encode())} | reply.headers).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, address: Any) -> None:
            pass  # the client has given up

    http = Quiet(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
