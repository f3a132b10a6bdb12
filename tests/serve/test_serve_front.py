"""The front of the server, before a server that says what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from serve_helpers import finished_run
from starlette.testclient import TestClient

from evoswarm.serve.front import Front
from evoswarm.serve.offer import Choice, make_offer

KEY = {"Authorization": "Bearer k"}
CHAT = {"model": "winner", "messages": [{"role": "user", "content": "hi"}]}


class Echo(BaseHTTPRequestHandler):
    """Answers with the name of the model that was asked, and counts loaded adapters."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(200, {"path": self.path})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        asked = self.server.asked  # type: ignore[attr-defined]
        asked.append((self.path, body, self.headers["Authorization"]))
        if self.path.endswith("load_lora_adapter"):
            return self._say(400, {"message": "rank 4 is too high"}) if "3" in body["lora_name"] else self._say(200, {})
        text = "b" if body.get("model") == "winner" else "a"
        self._say(200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": 1}})

    def _say(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


class Upstream:
    """vLLM's server, as the front sees it."""

    key = "inner"

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        self.asked: list[tuple[str, dict, str]] = []
        self.server.asked = self.asked  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("front"))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    found = Upstream()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def client(run_dir: Path, upstream: Upstream) -> Iterator[TestClient]:
    front = Front(make_offer(run_dir, Choice(ensemble=True)), upstream, key="k")
    with TestClient(front.app) as found:
        yield found


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "k2"}])
def test_a_missing_or_wrong_key_is_refused_everywhere_but_at_the_health_check(
    client: TestClient, upstream: Upstream, headers: dict
) -> None:
    for path in ("/v1/models", "/metrics", "/tokenize"):
        assert client.get(path, headers=headers).status_code == 401, path
    refused = client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert refused.status_code == 401 and "the API key is missing or wrong" in refused.json()["error"]["message"]
    assert client.get("/health", headers=headers).status_code == 200
    assert not upstream.asked


def test_a_model_is_asked_with_the_inner_key_and_an_unchanged_body(client: TestClient, upstream: Upstream) -> None:
    body = CHAT | {"temperature": 0.5, "extra": {"x": 1}}
    assert client.post("/v1/chat/completions", json=body, headers=KEY).json()["choices"][0]["message"]["content"] == "b"
    assert upstream.asked == [("/v1/chat/completions", body, "Bearer inner")]


def test_a_request_without_a_model_asks_the_winner(client: TestClient, upstream: Upstream) -> None:
    body = {"messages": CHAT["messages"]}
    assert client.post("/v1/chat/completions", json=body, headers=KEY).status_code == 200
    assert upstream.asked[0][1]["model"] == "winner"


def test_the_ensemble_asks_every_voter_and_answers_with_the_majority(client: TestClient, upstream: Upstream) -> None:
    reply = client.post("/v1/chat/completions", json=CHAT | {"model": "ensemble"}, headers=KEY).json()
    assert reply["choices"][0]["message"]["content"] == "a"  # two voters against the winner
    assert sorted(body["model"] for _, body, _ in upstream.asked) == ["voter_2", "voter_3", "winner"]
    assert reply["usage"] == {"total_tokens": 3}


def test_a_particle_is_loaded_once(client: TestClient, upstream: Upstream) -> None:
    for _ in range(2):
        assert client.post("/v1/chat/completions", json=CHAT | {"model": "gen_1/particle_0"}, headers=KEY).is_success
    assert [path for path, _, _ in upstream.asked].count("/v1/load_lora_adapter") == 1
    names = [model["id"] for model in client.get("/v1/models", headers=KEY).json()["data"]]
    assert names == ["winner", "base", "ensemble", "gen_1/particle_0"]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        (
            "nobody",
            404,
            "no model 'nobody'; there are winner, base, ensemble, and particles by names like gen_3/partic",
        ),
        ("gen_7/particle_0", 404, "there is no generation 7, only 0 to 2"),
        ("gen_1/particle_3", 404, "has no particle 3"),
    ],
)
def test_a_model_that_does_not_exist_is_named(client: TestClient, name: str, status: int, message: str) -> None:
    reply = client.post("/v1/chat/completions", json=CHAT | {"model": name}, headers=KEY)
    assert reply.status_code == status and message in reply.json()["error"]["message"]


def test_clients_cannot_replace_a_model(client: TestClient, upstream: Upstream) -> None:
    body = {"lora_name": "winner", "lora_path": "/elsewhere"}
    for path in (
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "//v1/load_lora_adapter",
        "/v1//load%5Flora_adapter",
    ):
        assert client.post(path, json=body, headers=KEY).status_code == 404, path
    assert not upstream.asked


def test_a_path_is_decoded_once(run_dir: Path, upstream: Upstream) -> None:
    """What is decoded twice would be `unload_lora_adapter` for vLLM."""

    async def post() -> None:
        app = Front(make_offer(run_dir, Choice()), upstream, key="k").app
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            await client.post("http://x/v1/unload_lor%2561_adapter?x=%2561", json={"lora_name": "winner"}, headers=KEY)

    asyncio.run(post())  # the TestClient of starlette decodes twice itself
    assert [path for path, _, _ in upstream.asked] == ["/v1/unload_lor%2561_adapter?x=%2561"]


def test_every_call_loads_the_particle_that_it_names(client: TestClient, upstream: Upstream) -> None:
    def post(model: str) -> int:
        return client.post("/v1/responses", json={"model": model, "input": "hi"}, headers=KEY).status_code

    assert post("gen_1/particle_0") == 200 and upstream.asked[0][0] == "/v1/load_lora_adapter"
    assert [post(name) for name in ("nobody", "ensemble", "winner")] == [404, 400, 200]


def test_one_model_is_shown_by_its_name(client: TestClient) -> None:
    assert client.get("/v1/models/winner", headers=KEY).json()["id"] == "winner"
    assert client.get("/v1/models/gen_9/particle_0", headers=KEY).status_code == 404
    assert client.get("/v1/models/winner").status_code == 401


def test_the_scheme_of_a_key_has_no_case(client: TestClient) -> None:
    assert client.get("/v1/models", headers={"Authorization": "bearer k"}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": "k"}).status_code == 401


def test_while_vllm_is_restarted_clients_are_told_to_ask_again(client: TestClient, upstream: Upstream) -> None:
    upstream.server.shutdown()
    upstream.server.server_close()
    for model in ("winner", "ensemble"):
        reply = client.post("/v1/chat/completions", json=CHAT | {"model": model}, headers=KEY)
        assert reply.status_code == 503 and reply.headers["Retry-After"] == "5"
    assert client.get("/health").status_code == 503


def test_the_vote_of_a_bad_request_is_refused(client: TestClient) -> None:
    reply = client.post("/v1/chat/completions", json=CHAT | {"model": "ensemble", "n": 3}, headers=KEY)
    assert reply.status_code == 400 and "takes no n" in reply.json()["error"]["message"]
    assert client.post("/v1/chat/completions", content=b"{", headers=KEY).status_code == 400
