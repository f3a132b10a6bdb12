"""The utilities that graders score, with their real components, on a real local cluster: the bytes of a local run."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from echo import echo_config, result_bytes
from lm_eval_helpers import write_tasks
from service_server import Reply, Server, serve
from tiny_scorers import save_scorer

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
SMALL = ("search={type: model_swarms, population: 4, max_generations: 2}", "engine.batch_size=8", "engine.delay=0.05")
RAY = "backend={type: ray, scorers: 1}"
DATA = {"path": "echo.json", "limit": 24, "test_limit": 8}
Make = Callable[[Path], dict[str, Any]]


def number_of(text: str) -> int:
    """A number between 0 and 65535 that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:4], 16)


def rating(body: Any, number: int) -> Any:
    """A chat completion that rates a text from 1 to 5."""
    message = {"role": "assistant", "content": str(1 + number_of(body["messages"][-1]["content"]) % 5)}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return about | {"choices": [choice], "usage": usage}


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(rating) as server:
        yield server


def reward(folder: Path) -> dict[str, Any]:
    models = {"helpful": {"model": str(save_scorer(folder / "scorer")), "normalize": "measured"}}
    return {"type": "reward", "data": DATA, "models": models, "length": "concise"}


def code(folder: Path) -> dict[str, Any]:
    records = [{"id": i, "question": f"print {i}: print({i})", "inputs": [""], "outputs": [f"{i}"]} for i in range(30)]
    (folder / "programs.json").write_text(json.dumps({"dev": records[:20], "test": records[20:]}))
    return {"type": "code", "data": "programs.json", "prompt": {"template": "{question}"}}


def lm_eval(folder: Path) -> dict[str, Any]:
    pytest.importorskip("lm_eval")
    write_tasks(folder)
    chosen = {
        "say": {"metric": "chrf", "filter": "whole"},
        "either": {"metric": "acc"},
        "pages": {"metric": "byte_perplexity"},
    }
    shared = {"type": "lm_eval", "include_path": str(folder)}
    own = {name: {**shared, "task": name, **more} for name, more in chosen.items()}
    return {"type": "multi_task", "combine": "weighted_sum", "tasks": own}


def kill(title: str) -> int:
    """kill -9 of the actors of this cluster with this title; returns their number."""
    killed = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith(f"ray::{title}"):
                process.send_signal(signal.SIGKILL)
                killed += 1
        except (psutil.Error, IndexError):
            continue
    return killed


def run_killing(config: RunConfig, *titles: str) -> list[str]:
    """Run, and kill actors with these titles, one after each generation. Returns what the run said."""
    said: list[str] = []
    left = list(titles)

    def notify(event: Event) -> None:
        said.append(str(event.get("text")))
        if event["kind"] == "generation" and left:
            assert kill(left.pop(0)) == 1

    evoswarm.run(config, callbacks=Callbacks(notify))
    assert not left
    return said


def bytes_of(config: RunConfig) -> dict[str, bytes]:
    names = [name for name in ("learned.jsonl", "normalization.json") if (config.run_dir / name).exists()]
    return result_bytes(config.run_dir) | {name: (config.run_dir / name).read_bytes() for name in names}


def judge_of(server: Server) -> Make:
    judges = {"one": {"base_url": f"{server.url}/v1", "model": "m"}}
    return lambda folder: {"type": "judge", "data": DATA, "judges": judges, "rubric": "{question}\n{answer}"}


@pytest.mark.parametrize("kind", ["reward", "judge", "code", "lm_eval"])
def test_a_run_on_ray_has_the_bytes_of_a_local_one_also_after_kills(kind: str, tmp_path: Path, server: Server) -> None:
    make: Make = judge_of(server) if kind == "judge" else {"reward": reward, "code": code, "lm_eval": lm_eval}[kind]
    echo_config(tmp_path)  # writes the world
    settings = (*SMALL, f"utility={json.dumps(make(tmp_path))}")
    local = echo_config(tmp_path, *settings, "name=local")
    evoswarm.run(local)
    expected, asked = bytes_of(local), len(server.bodies)
    killed = echo_config(tmp_path, *settings, "name=killed", RAY)
    grader = "Scorer" if kind == "lm_eval" else "Grader"
    said = run_killing(killed, grader, "Coordinator")
    assert bytes_of(killed) == expected
    assert any(line.startswith(f"{grader.lower()} 0 was lost") for line in said)
    if kind == "code":
        assert b"[1.0,0.0," in expected["outcomes/final.jsonl"].replace(b" ", b"")  # a program has passed
    if kind == "judge":
        assert asked and len(server.bodies) - 2 * asked < asked / 2


def test_a_killed_coordinator_loses_the_answers_of_the_last_seconds_only(tmp_path: Path) -> None:
    def opinion(body: Any, number: int) -> Reply:
        return Reply({"score": number_of(body["text"]) / 0xFFFF}, delay=0.15 if number < 40 else 0)

    with serve(opinion) as server:
        http = {"type": "http", "data": {"path": "echo.json", "limit": 60, "test": None}, "url": server.url}
        http |= {"body": {"text": "{question} | {answer}"}, "score": "score", "limits": {"concurrency": 1}}
        small = ("search={type: model_swarms, population: 2, max_generations: 1}", "engine.batch_size=128")
        config = echo_config(tmp_path, *small, RAY, f"utility={json.dumps(http)}")
        server.on_request = lambda number: kill("Coordinator") if number == 30 else None
        evoswarm.run(config)
        texts = [body["text"] for body in server.bodies]
    assert len(texts) > 60 and len(texts) - len(set(texts)) < 2 / 0.15
