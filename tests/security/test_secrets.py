"""Secrets are rejected in configs, and secrets from the environment never reach files or output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from echo import make_world

from evoswarm.config import RunConfig, load_config
from evoswarm.config.secrets import secrets_in
from evoswarm.config.training import TrainingConfig
from evoswarm.errors import UserError

GOOD = {"model": "m", "pool": "experts", "utility": {"type": "exact_match", "data": "d.json"}}
TOKEN = "hf_" + "Qz7" * 12
PLANTED = {
    "HF_TOKEN": TOKEN,
    "AWS_SECRET_ACCESS_KEY": "planted+aws/secret+" + "x1" * 10,
    "OPENAI_API_KEY": "sk-" + "planted0" * 5,
    "WANDB_API_KEY": "planted-wandb-" + "y2" * 12,
    "RAY_AUTH_TOKEN": "7" * 24 + "abcdef01" * 5,
}


@pytest.mark.parametrize(
    "changes, place",
    [
        ({"engine": {"type": "vllm", "args": {"hf_token": "anything"}}}, "engine.args.hf_token"),
        ({"engine": {"type": "vllm", "args": {"api-key": "anything"}}}, "engine.args.api-key"),
        ({"model": f"https://user:{TOKEN}@host/model"}, "model"),
        ({"pool": ["a", "s3://key:secret@bucket/b"]}, "pool.1"),
        ({"utility": {"type": "exact_match", "data": "d.json", "stop": [TOKEN]}}, "utility.stop.0"),
    ],
)
def test_a_secret_in_a_config_is_rejected_by_its_key_and_never_printed(
    tmp_path: Path, changes: dict[str, object], place: str
) -> None:
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(GOOD | changes))
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "it.yaml")
    text = str(caught.value)
    assert f": {place} holds a secret" in text and "by the environment" in text and "\n" not in text
    assert TOKEN not in text and "anything" not in text and "key:secret" not in text


def test_a_secret_in_set_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(UserError, match="model holds a secret"):
        load_config(tmp_path / "it.yaml", overrides=[f"model={TOKEN}"])


def test_ordinary_configs_contain_no_secrets() -> None:
    ordinary = {
        "model": "org/hf_model-7b",
        "utility": {"max_new_tokens": 32, "columns": {"question": "token", "answer": "secret"}},
        "engine": {"args": {"tokenizer_mode": "slow", "max_num_batched_tokens": 64, "hf_token": None, "seed": 3}},
        "headers": {"X-Api-Key": "$SCORE_KEY", "Auth-Token": "Bearer ${SCORE_KEY}"},
        "pool": ["s3://bucket/a", "hdfs://namenode:9000/b", "/data/token/x"],
    }
    assert secrets_in(ordinary) == []
    assert secrets_in({"api_key": "$ecret word", "token": "a$b"}) == ["api_key", "token"]


def keys(schema: Any) -> set[str]:
    """The names of all properties in a JSON schema."""
    if isinstance(schema, list):
        return {name for item in schema for name in keys(item)}
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    return {*own} | {name for item in schema.values() for name in keys(item)}


def test_no_key_of_a_config_has_the_name_of_a_secret() -> None:
    names = keys(RunConfig.model_json_schema()) | keys(TrainingConfig.model_json_schema())
    assert {"max_new_tokens", "marker", "reasoning_tags", "adapter_mode"} <= names
    assert secrets_in(dict.fromkeys(names, "value")) == []


def test_secrets_of_the_environment_never_reach_outputs_or_logs(tmp_path: Path) -> None:
    """A run on Ray; its utility fails for some particles, so that errors are also written."""
    make_world(tmp_path)
    (tmp_path / "judge.py").write_text(
        "def judge(example, response):\n    return 1 / 0 if (example['id'], response) == ('7', '?') else 1.0\n",
        encoding="utf-8",
    )
    logs = Path("/tmp") / f"evr{os.getpid()}"  # short path: Ray creates sockets in it
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = kept | PLANTED | {"RAY_TMPDIR": str(logs), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    utility = "utility={type: custom, function: 'judge:judge', data: echo.json}"
    command = [sys.executable, "-m", "evoswarm", "run", "it.yaml", "--set", utility]
    command += ["--set", "backend={type: ray, address: local, scorers: 1}", "--set", "search.max_generations=1"]
    logs.mkdir()
    try:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        written = [path for folder in (tmp_path, logs) for path in folder.rglob("*") if path.is_file()]
        names = {path.name for path in written}
        assert (tmp_path / "runs/echo/config.yaml") in written and any(name.startswith("raylet") for name in names)
        found = [
            (path, name) for path in written for name, secret in PLANTED.items() if secret.encode() in path.read_bytes()
        ]
        assert found == []
        assert not any(secret in done.stdout + done.stderr for secret in PLANTED.values())
        assert "ZeroDivisionError" in (tmp_path / "runs/echo/outcomes/gen_0000.jsonl").read_text()
    finally:
        subprocess.run(["rm", "-rf", str(logs)], check=True)
