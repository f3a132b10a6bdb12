"""What is said about a token that is missing or wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray

from evoswarm.launch.connect import token_problem

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs a token, but none was sent"),
        ({"RAY_AUTH_MODE": "TOKEN"}, "needs a token, but none was sent"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE=disabled sends none; unset it"),
        ({"RAY_AUTH_MODE": ""}, "RAY_AUTH_MODE= sends none; unset it"),
        ({"RAY_AUTH_TOKEN": "x"}, "does not accept the token in RAY_AUTH_TOKEN"),
        (
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/no/token"},
            "the file /no/token (RAY_AUTH_TOKEN_PATH) is missing",
        ),
    ],
)
def test_what_is_wrong_with_the_token_is_one_line_that_names_the_places_for_it(
    given: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    text = token_problem()
    assert words in text and "\n" not in text
    assert all(place in text for place in ("RAY_AUTH_TOKEN,", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"))


SECRET = "0123456789abcdef" * 4


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with a token as `ray get-auth-token` writes it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(SECRET + "\n")
    return tmp_path


def run(*arguments: str, home: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """An evoswarm command, or with `-c` Python code, with no token in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, *(("-m", "evoswarm") if arguments[0] != "-c" else ()), *arguments]
    env = kept | {"HOME": str(home)} | given
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def dashboard() -> Iterator[tuple[str, set[str]]]:
    """What a dashboard answers to those who send the token; its address, and the paths that were asked for."""
    asked: set[str] = set()

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == f"Bearer {SECRET}"
            asked.add(self.path)
            body = b"[]" if self.path == "/api/jobs/" else json.dumps({"ray_version": ray.__version__}).encode()
            self.send_response(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_command_sends_the_token_of_the_home_folder_without_further_settings(
    home: Path, dashboard: tuple[str, set[str]]
) -> None:
    address, asked = dashboard
    done = run("list", "--address", address, "--json", home=home)
    assert done.returncode == 0 and json.loads(done.stdout) == [], done.stderr
    assert {"/api/version", "/api/jobs/"} <= asked and not done.stderr
    done = run("list", "--address", address, home=home, RAY_AUTH_MODE="disabled")
    assert done.returncode == 2 and "RAY_AUTH_MODE=disabled sends none; unset it" in done.stderr
    done = run("list", "--address", address, home=home, RAY_AUTH_TOKEN_PATH="/no/token")
    assert done.returncode == 2 and "the file /no/token (RAY_AUTH_TOKEN_PATH) is missing" in done.stderr
    done = run("list", "--address", address, home=home / "nobody")
    assert done.returncode == 2 and "none was sent" in done.stderr and len(done.stderr.splitlines()) == 1


class Heads(grpc.GenericRpcHandler):
    """Answers like a head: with a token, only those who send it."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            sent = dict(context.invocation_metadata()).get("authorization")
            if self._token is not None and sent != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Authentication token is missing or incorrect")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


JOIN = """
import os, sys
from evoswarm.errors import UserError
from evoswarm.launch.connect import _accepts
try:
    _accepts(sys.argv[1])
except UserError as error:
    print(error)
print("mode", os.environ.get("RAY_AUTH_MODE"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "given", "words"),
    [
        (SECRET, {}, "mode token"),
        (None, {}, "mode None"),
        ("other", {}, "cannot be used: it does not accept the token in ~/.ray/auth_token"),
        ("other", {"RAY_AUTH_TOKEN": "x"}, "it does not accept the token in RAY_AUTH_TOKEN"),
        (SECRET, {"RAY_AUTH_MODE": "disabled"}, "it needs a token, but RAY_AUTH_MODE=disabled sends none"),
        (SECRET, {"RAY_AUTH_TOKEN_PATH": "/no/token"}, "but the file /no/token (RAY_AUTH_TOKEN_PATH) is missing"),
    ],
)
def test_a_run_that_joins_uses_a_token_only_if_the_head_wants_one(
    home: Path, token: str | None, given: dict[str, str], words: str
) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Heads(token),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    done = run("-c", JOIN, f"127.0.0.1:{port}", home=home, **given)
    server.stop(None)
    assert words in done.stdout, done.stderr
