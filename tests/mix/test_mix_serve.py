"""A mix behind OpenAI's API: it chooses as the run does, many requests at once, and refuses what it cannot do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mix_helpers import OPTIONS, config_of, make_world, questions
from starlette.testclient import TestClient

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.evaluate import measure
from evoswarm.serve.mix import load_mix
from evoswarm.serve.offer import Choice
from evoswarm.serve.options import OptionsFront
from evoswarm.serve.vllm import free_port
from evoswarm.weights.mixfile import MIX

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("world")
    start = "search.start={llama: 0.6, other: 0.7, tuned: -0.3}"
    config = config_of(make_world(folder), folder, folder / "runs", start)
    evoswarm.run(config)
    return config


@pytest.fixture(scope="module")
def client(run: RunConfig) -> Iterator[TestClient]:
    model, chat = load_mix(run.run_dir, Choice(), say=lambda text: None)
    with closing(model), TestClient(OptionsFront(model, chat=chat, key="secret").app) as client:
        yield client


def ask(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/completions", json={"options": list(OPTIONS)} | body, headers=KEY)


def test_it_chooses_what_evaluate_scores_also_when_many_ask_at_once(run: RunConfig, client: TestClient) -> None:
    found = measure(run, adapter=run.run_dir / "best", recipe=None, split="validation")
    prompts = [f"{question['question']}:" for question in questions(12)]
    with ThreadPoolExecutor(12) as threads:
        replies = [reply.json() for reply in threads.map(lambda prompt: ask(client, prompt=prompt), prompts)]
    texts = [reply["choices"][0]["text"] for reply in replies]
    assert ["ABC"[OPTIONS.index(text)] for text in texts] == found.predictions
    for reply, text in zip(replies, texts, strict=True):
        shares = reply["evoswarm"]["probabilities"]
        assert max(shares, key=shares.__getitem__) == text and sum(shares.values()) == pytest.approx(1)


def test_chats_and_streams_have_the_chosen_option(client: TestClient) -> None:
    body = {"model": "winner", "messages": [{"role": "user", "content": "color?"}], "options": ["red", "blue"]}
    said = client.post("/v1/chat/completions", json=body, headers=KEY)
    assert said.json()["choices"][0]["message"]["content"] in ("red", "blue")
    wrong = client.post("/v1/chat/completions", json=body | {"messages": [{"role": "x"}]}, headers=KEY)
    assert wrong.status_code == 400 and "each message needs a role" in wrong.json()["error"]["message"]
    streamed = ask(client, prompt="x:", stream=True).text
    assert streamed.endswith("data: [DONE]\n\n") and any(option in streamed for option in OPTIONS)
    assert client.get("/v1/models", headers=KEY).json()["data"][0]["id"] == "winner"
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"options": None}, 400, "chooses among options and writes no text; send `options`"),
        ({"options": ["red"]}, 400, "at least two different texts"),
        ({"options": ["red", "red"]}, 400, "at least two different texts"),
        ({"options": "red"}, 400, "send `options`"),
        ({"options": ["red", ""]}, 400, "send `options`"),
        ({"prompt": ["a", "b"]}, 400, "prompt must be one text"),
        ({"model": "base"}, 404, "no model 'base'; there is winner"),
        ({"n": 3}, 400, "takes no n or tools"),
        ({"prompt": "long " * 300}, 400, "tokens, the model takes"),
    ],
)
def test_what_a_mix_cannot_do_is_refused(client: TestClient, body: dict[str, Any], status: int, why: str) -> None:
    reply = ask(client, **({"prompt": "x:"} | body))
    assert reply.status_code == status and why in reply.json()["error"]["message"]


def test_a_wrong_key_is_refused(client: TestClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert client.post("/v1/completions", json={}, headers=headers).status_code == 401
        assert client.get("/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("choice", "why"), [(Choice(ensemble=True), "--ensemble: the run mixes"), (Choice(merged=True), "--merged or")]
)
def test_options_for_weights_are_refused(run: RunConfig, choice: Choice, why: str) -> None:
    with pytest.raises(UserError, match=why):
        load_mix(run.run_dir, choice, say=lambda text: None)


def test_a_particle_is_served_and_a_changed_model_is_not(run: RunConfig, tmp_path: Path) -> None:
    model, _ = load_mix(run.run_dir, Choice(generation=1, particle=2), say=lambda text: None)
    model.close()
    assert (run.run_dir / "serving" / "gen_0001" / "particle_2" / MIX).exists()
    path = run.run_dir / "best" / MIX
    before = path.read_text()
    mix = json.loads(before)
    mix["members"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(mix))
    with pytest.raises(UserError, match="is not in the pool, or has changed; restore it"):
        load_mix(run.run_dir, Choice(), say=lambda text: None)
    path.write_text(before)


@pytest.mark.slow
def test_the_command_serves_a_mix_for_the_openai_client(run: RunConfig) -> None:
    import openai

    port = free_port()
    command = [sys.executable, "-m", "evoswarm", "serve", str(run.run_dir), "--port", str(port)]
    server = subprocess.Popen([*command, "--api-key-env", "MIX_KEY"], env=os.environ | {"MIX_KEY": "k"})
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=8)
        until = time.monotonic() + 120
        while True:
            try:
                reply = client.completions.create(model="winner", prompt="x:", extra_body={"options": list(OPTIONS)})
                break
            except openai.APIConnectionError:
                assert time.monotonic() < until and server.poll() is None
        assert reply.choices[0].text in OPTIONS
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="no").models.list()
    finally:
        server.terminate()
        server.wait()
