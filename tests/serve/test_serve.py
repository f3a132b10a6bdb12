"""A real server: vLLM behind the front, asked with the openai client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from serve_helpers import WORDS, finished_run

from evoswarm.loop.history import written_config
from evoswarm.loop.records import read_outcomes
from evoswarm.route.router import load_router
from evoswarm.rows import Row
from evoswarm.serve.vllm import free_port
from evoswarm.utility import make_utility

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
pytestmark = pytest.mark.slow


@contextmanager
def serving(run_dir: Path, *options: str) -> Iterator[tuple[openai.OpenAI, psutil.Process, Path]]:
    """A client of `evoswarm serve`, the server's process, and its output."""
    port, log = free_port(), run_dir.parent / "serve.log"
    command = [
        sys.executable,
        "-m",
        "evoswarm",
        "serve",
        str(run_dir),
        "--port",
        str(port),
        "--api-key-env",
        "SERVE_KEY",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options, "--", "--enforce-eager"], stderr=output, env=os.environ | {"SERVE_KEY": "right"}
        )
    try:
        wait_for(lambda: "serving winner" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="right", max_retries=0, timeout=300)
        yield client, psutil.Process(process.pid), log
    finally:
        process.terminate()
        process.wait(60)


def wait_for(what: Any, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.3)


def ask(client: openai.OpenAI, model: str, text: str, **options: Any) -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=6, temperature=0, **options
    )


def text_of(reply: Any) -> str:
    return str(reply.choices[0].message.content)


@pytest.mark.timeout(1500)
def test_a_served_run(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path)
    lines = {(line["who"], line["split"]): line for line in read_outcomes(run_dir / "outcomes" / "final.jsonl")}
    with serving(run_dir, "--ensemble") as (client, process, log):
        assert [model.id for model in client.models.list()] == ["winner", "base", "ensemble"]

        # Answers are those that the run has recorded.
        for model, who in (("winner", "ensemble:0"), ("base", "base")):
            answers = [text_of(ask(client, model, word)).strip() or None for word in WORDS]
            assert answers == lines[who, "test"]["predictions"], model

        # 64 requests at once, to models and to the ensemble.
        alone = {model: text_of(ask(client, model, WORDS[0])) for model in ("winner", "base", "ensemble")}
        with ThreadPoolExecutor(64) as threads:
            models = [list(alone)[i % 3] for i in range(64)]
            found = list(threads.map(lambda model: text_of(ask(client, model, WORDS[0])), models))
        assert found == [alone[model] for model in models]

        # A stream, and a particle that is loaded when it is asked for.
        stream = ask(client, "winner", WORDS[0], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == alone["winner"]
        assert ask(client, "gen_1/particle_0", WORDS[0]).model == "gen_1/particle_0"

        with pytest.raises(openai.NotFoundError, match="no model 'nobody'"):
            ask(client, "nobody", "x")
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            client.with_options(api_key="wrong").models.list()
        inner = [c for c in process.children(recursive=True) if "api_server" in " ".join(c.cmdline())][0]
        (port,) = {c.laddr.port for c in inner.net_connections() if c.status == "LISTEN" and c.laddr.ip == "127.0.0.1"}
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401  # also behind the front

        # A killed server comes back, with the particle.
        engines = inner.children(recursive=True)
        inner.send_signal(signal.SIGKILL)
        wait_for(lambda: "vLLM died" in log.read_text())
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, "winner", WORDS[0])
        assert caught.value.status_code == 503
        wait_for(lambda: "vLLM is up again" in log.read_text())
        assert engines and not any(engine.is_running() for engine in engines)
        assert text_of(ask(client, "winner", WORDS[0])) == alone["winner"]
        assert ask(client, "gen_1/particle_0", WORDS[0]).model == "gen_1/particle_0"
        children = process.children(recursive=True)
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left


@pytest.mark.timeout(900)
def test_a_killed_server_leaves_no_process(tmp_path: Path) -> None:
    with serving(finished_run(tmp_path), "--merged") as (client, process, _):
        assert [model.id for model in client.models.list()] == ["winner"]
        children = process.children(recursive=True)
        process.kill()
        _, left = psutil.wait_procs(children, timeout=60)
        assert not left


@pytest.mark.timeout(900)
def test_the_served_router_gives_the_answers_that_were_recorded(routed_run: Path) -> None:
    router, config = load_router(routed_run), written_config(routed_run)
    choices = router.about["choices"]
    recorded = {}
    for file in ("final", "router"):
        for line in read_outcomes(routed_run / "outcomes" / f"{file}.jsonl"):
            if line["split"] == "test":
                recorded[None if line["row"] is None else Row.from_list(line["row"])] = line["predictions"]
    rows = {one.name: one.row for one in router.candidates}
    wanted = [recorded[rows[name]][i] for i, name in enumerate(choices)]
    prompts = [request.prompt for request in make_utility(config.utility, root=config.root).requests("test")]
    with serving(routed_run, "--router") as (client, _, _):
        assert [model.id for model in client.models.list()][-1] == "router"

        def answer(prompt: Any) -> tuple[str, str | None]:
            messages = [{"role": role, "content": text} for role, text in prompt.messages]
            reply = client.chat.completions.create(model="router", messages=messages, max_tokens=8, temperature=0)
            return reply.model, text_of(reply).strip() or None

        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(answer, prompts))
        assert [model for model, _ in found] == choices
        assert [text for _, text in found] == wanted
        stream = ask(client, "router", prompts[0].messages[-1][1], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
