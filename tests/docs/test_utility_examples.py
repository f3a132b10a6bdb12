"""Every type of utility has an example in the guide, and every example of the guide runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import ROOT, Block, blocks_of, make_files
from service_server import Server, serve

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.toy import world
from evoswarm.utility import UTILITIES

GUIDE = ROOT / "docs" / "guides" / "utilities.md"
EXAMPLES = [
    block
    for block in blocks_of(GUIDE)
    if block.language == "yaml" and not block.not_run and "type" in yaml.safe_load(block.text).get("utility", {})
]


def types_in(value: Any) -> Iterator[str]:
    """The types of a utility and of all utilities in it."""
    if isinstance(value, dict):
        if value.get("type") in UTILITIES:
            yield value["type"]
        for part in value.values():
            yield from types_in(part)


def test_every_type_is_in_both_tables_and_in_an_example() -> None:
    shown = {kind for block in EXAMPLES for kind in types_in(yaml.safe_load(block.text)["utility"])}
    assert shown == set(UTILITIES)
    rows = re.findall(r"^\| (`.*?) \|", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert all(named.count(kind) >= 2 for kind in set(UTILITIES) - {"multi_task"})


def reply(body: Any, number: int) -> Any:
    """What the services of the examples answer."""
    if "texts" in body:
        return {"results": [{"toxicity": 0.25} for _ in body["texts"]]}
    first = {"token": "4", "logprob": math.log(0.9), "bytes": None, "top_logprobs": []}
    first["top_logprobs"] = [{key: first[key] for key in ("token", "logprob", "bytes")}]
    message = {"role": "assistant", "content": "4" if body.get("top_logprobs") else "Rating: 4/10"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [first]}}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for key in ("JUDGE_KEY", "TOXICITY_KEY"):
        monkeypatch.setenv(key, "secret")
    with serve(reply, models=["judge", "judge-large"]) as server:
        yield server


def here(value: Any, server: Server) -> Any:
    """A utility with short answers, and with the local server in place of its services."""
    if isinstance(value, dict):
        return {key: here(part, server) for key, part in value.items()} | {
            key: min(part, 8) for key, part in value.items() if key == "max_new_tokens"
        }
    return re.sub(r"^https?://[^/]+", server.url, value) if isinstance(value, str) else value


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_runs(block: Block, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for other in blocks_of(GUIDE):
        if other.language == "python":
            (tmp_path / other.file("py")).write_text(other.text)
    data: dict[str, Any] = {
        "model": str(world() / "base"),
        "pool": "./experts",
        "search": {"type": "random_search", "population": 2, "max_generations": 1, "ensemble_size": 1},
        "utility": here(yaml.safe_load(block.text)["utility"], server),
        "engine": {"type": "transformers", "batch_size": 8},
        "backend": {"type": "local"},
        "references": False,
    }
    make_files(data, tmp_path)
    summary = evoswarm.run(parse_config(data, root=tmp_path))
    assert isinstance(summary["best"]["validation"], float)
    if {"http", "judge"} & set(types_in(data["utility"])):
        assert server.bodies and ("_KEY" in block.text) == (server.headers["authorization"] == "Bearer secret")
