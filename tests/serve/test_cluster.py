"""The winner on a cluster, with Ray Serve LLM."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
import ray
from serve_helpers import WORDS, finished_run

from evoswarm.errors import UserError
from evoswarm.loop.records import read_outcomes
from evoswarm.serve.cluster import ServeArgs, build, deploy, serve_args
from evoswarm.serve.offer import Choice, make_offer

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")


def test_a_model_that_is_not_there_is_refused_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no config.json; write it with `evoswarm export RUN --merged -o FOLDER`"):
        build({"model": str(tmp_path)})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_winner_on_a_cluster_answers_only_with_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_KEY", "right")
    run_dir = finished_run(tmp_path)
    offer = make_offer(run_dir, Choice(merged=True))
    args = serve_args(offer, "SERVE_KEY", replicas=1, cpus=1, gpus=0)
    args = args.with_(engine={"args": {"enforce_eager": True, "max_model_len": 128}})
    assert isinstance(args, ServeArgs)
    ray.init(num_cpus=6, include_dashboard=False, log_to_driver=False)
    try:
        deploy(args, address="auto")
        client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="right", max_retries=0, timeout=300)
        assert [model.id for model in client.models.list()] == ["winner"]
        for key in ("wrong", "righter"):
            with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
                client.with_options(default_headers={"Authorization": f"Bearer {key}"}).models.list()
        lines = {(line["who"], line["split"]): line for line in read_outcomes(run_dir / "outcomes" / "final.jsonl")}
        answers = []
        for word in WORDS:
            reply = client.chat.completions.create(
                model="winner", messages=[{"role": "user", "content": word}], max_tokens=6, temperature=0
            )
            answers.append((reply.choices[0].message.content or "").strip() or None)
        assert answers == lines["ensemble:0", "test"]["predictions"]
    finally:
        ray.shutdown()
