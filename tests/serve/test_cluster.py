"""The winner on a cluster, with Ray Serve LLM."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest
from serve_helpers import WORDS, finished_run

from evoswarm.errors import UserError
from evoswarm.loop.records import read_outcomes
from evoswarm.serve.cluster import build, serve_args
from evoswarm.serve.offer import Choice, make_offer

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")


def test_a_model_that_is_not_there_is_refused_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no config.json; write it with `evoswarm export RUN --merged -o FOLDER`"):
        build({"model": str(tmp_path)})


DEPLOY = """
import sys
import ray
from evoswarm.serve.cluster import ServeArgs, deploy

ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False)
deploy(ServeArgs.model_validate_json(sys.argv[1]), address="auto")
print("ready", flush=True)
sys.stdin.read()
"""
"""A program of its own: the cluster that other tests share has fewer CPUs."""


@dataclass
class Deployed:
    """A run whose winner answers at port 8000, and the program that has deployed it."""

    run_dir: Path
    program: subprocess.Popen[str]

    def kill_the_model(self) -> None:
        """Kill the only replica."""
        programs = psutil.Process(self.program.pid).children(recursive=True)
        (replica,) = (p for p in programs if " ".join(p.cmdline()).startswith("ray::ServeReplica:evoswarm:LLMServer"))
        replica.kill()


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    run_dir = finished_run(tmp_path)
    args = serve_args(make_offer(run_dir, Choice(merged=True)), "SERVE_KEY", replicas=1, cpus=1, gpus=0)
    args = args.with_(engine={"args": {"enforce_eager": True, "max_model_len": 128}})
    command = [sys.executable, "-c", DEPLOY, args.model_dump_json()]
    environment = os.environ | {"SERVE_KEY": "right"}
    log = tmp_path / "deploy.log"
    with log.open("w") as errors:
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    assert program.stdin is not None and program.stdout is not None
    try:
        assert program.stdout.readline() == "ready\n", log.read_text()[-2000:]
        yield Deployed(run_dir, program)
    finally:
        program.stdin.close()
        try:
            program.wait(60)
        finally:
            program.kill()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_winner_on_a_cluster_needs_the_key_and_answers_again_after_a_kill(
    deployed: Deployed,
) -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="right", max_retries=0, timeout=300)
    assert [model.id for model in client.models.list()] == ["winner"]
    for key in ("wrong", "righter"):
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            client.with_options(default_headers={"Authorization": f"Bearer {key}"}).models.list()
    assert answers(client) == recorded(deployed.run_dir)
    deployed.kill_the_model()
    assert answers(client.with_options(max_retries=30)) == recorded(deployed.run_dir)


def recorded(run_dir: Path) -> list[str | None]:
    """The winner's answers as the run has measured them."""
    lines = {(line["who"], line["split"]): line for line in read_outcomes(run_dir / "outcomes" / "final.jsonl")}
    found: list[str | None] = lines["ensemble:0", "test"]["predictions"]
    return found


def answers(client: openai.OpenAI) -> list[str | None]:
    """The served winner's answers."""
    found = []
    for word in WORDS:
        reply = client.chat.completions.create(
            model="winner", messages=[{"role": "user", "content": word}], max_tokens=6, temperature=0
        )
        found.append((reply.choices[0].message.content or "").strip() or None)
    return found
