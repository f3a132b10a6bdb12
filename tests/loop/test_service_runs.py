"""Whole runs whose answers a service scores: budgets, kills, and what is asked again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from echo import echo_config, make_world, result_bytes
from service_server import Reply, Server, serve

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.learned import read_learned

SETTINGS = ("search.population=4", "search.max_generations=2", "engine.batch_size=8")


def opinion(body: Any, number: int) -> Any:
    """A score that depends on the text alone."""
    return {"score": int(hashlib.sha256(body["text"].encode()).hexdigest()[:4], 16) / 0xFFFF}


def scored_config(folder: Path, url: str, name: str, **limits: Any) -> RunConfig:
    if not (folder / "it.yaml").exists():
        make_world(folder, experts=4, validation=20, test=10)
        config = yaml.safe_load((folder / "it.yaml").read_text())
        utility = {"type": "http", "data": "echo.json", "url": url, "score": "score"}
        utility["body"] = {"text": "{question} | {answer}"}
        (folder / "it.yaml").write_text(yaml.safe_dump(config | {"utility": utility}))
    return echo_config(folder, *SETTINGS, f"name={name}", f"utility.limits={json.dumps(limits)}")


def texts(server: Server) -> list[str]:
    return [body["text"] for body in server.bodies]


def test_a_budget_that_ends_in_the_middle_of_a_generation_stops_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    def config_of(name: str, **limits: Any) -> RunConfig:
        few = {"data": {"limit": 8, "test_limit": 4}}
        return scored_config(tmp_path, server.url, name, **limits).with_(utility=few)

    with serve(opinion) as server:
        evoswarm.run(config_of("whole"))
        asked = texts(server)
        assert len(set(asked)) == len(asked)
        server.bodies.clear()
        for requests in len(asked) // 3, len(asked) // 2:
            with pytest.raises(UserError, match=f"utility.limits.budget.requests: {requests} of {requests} are spent"):
                evoswarm.run(config_of("parts", budget={"requests": requests}))
            assert len(server.bodies) == requests
        parts = config_of("parts", concurrency=3)
        evoswarm.run(parts)
        assert sorted(texts(server)) == sorted(asked)
        assert result_bytes(parts.run_dir) == result_bytes(tmp_path / "runs" / "whole")


def kill_at(folder: Path, server: Server, number: int, config: RunConfig) -> dict[str, str]:
    """Start the run in a process that is killed at its request of this number. Returns what it has recorded."""
    (folder / "it-alone.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude={"root"})))
    process = subprocess.Popen([sys.executable, "-m", "evoswarm", "run", str(folder / "it-alone.yaml")])
    server.on_request = lambda n: os.kill(process.pid, signal.SIGKILL) if n == number else None
    assert process.wait(timeout=120) == -signal.SIGKILL
    server.on_request = lambda n: None
    return read_learned(config.run_dir / "learned.jsonl")


@pytest.mark.slow
def test_a_killed_run_asks_again_only_what_was_not_recorded_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    with serve(opinion) as server:
        whole = scored_config(tmp_path, server.url, "whole")
        evoswarm.run(whole)
        asked = texts(server)
        server.bodies.clear()
        parts = scored_config(tmp_path, server.url, "parts", concurrency=2)
        recorded = kill_at(tmp_path, server, len(asked) // 2, parts)
        assert recorded
        lost = len(server.bodies) - len(recorded)
        evoswarm.run(parts)
        assert set(texts(server)) == set(asked) and len(server.bodies) - len(asked) <= lost
        assert result_bytes(parts.run_dir) == result_bytes(whole.run_dir)
        learned = [(config.run_dir / "learned.jsonl").read_bytes() for config in (parts, whole)]
        assert learned[0] == learned[1]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_slow_slice_loses_the_answers_of_the_last_second_only(tmp_path: Path) -> None:
    with serve(lambda body, number: Reply(opinion(body, number), delay=0.15)) as server:
        config = scored_config(tmp_path, server.url, "slow", concurrency=1)
        recorded = kill_at(tmp_path, server, 18, config.with_(engine={"batch_size": 64}))
        assert len(recorded) >= 18 - 1 / 0.15
