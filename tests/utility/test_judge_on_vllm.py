"""A judge at vLLM's own API server on the CPU, with the toy base as the model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evoswarm.errors import UserError
from evoswarm.toy import world
from evoswarm.utility import UTILITIES, make_utility

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
pytestmark = pytest.mark.slow
SECONDS = 600
RUBRIC = "{answer} add 12 34"
"""The toy base answers with digits."""
ANSWERS = ["abc", "cab", "OK", "12", "sort"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server, which has one model and a key."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    model = ["--model", str(world() / "base"), "--served-model-name", "toy", "--max-model-len", "64"]
    options = ["--enforce-eager", "--api-key", "abc", "--dtype", "float32"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        process = subprocess.Popen([*command, *model, *options], stdout=log, stderr=log, env=environment)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    for _ in range(SECONDS):
        if process.poll() is not None:
            pytest.fail(log.read_text()[-3000:])
        try:
            urllib.request.urlopen(health, timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    pytest.fail("the server did not start")


@pytest.fixture
def judge(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """judge(...) makes an opened judge over the toy model."""
    monkeypatch.setenv("JUDGE_KEY", "abc")
    records = [{"prompt": f"sort {text}", "id": i, "answer": "abc"} for i, text in enumerate(ANSWERS)]
    (tmp_path / "d.json").write_text(json.dumps({"dev": records}))
    made: list[Any] = []

    def make(model: str = "toy", key_env: str = "JUDGE_KEY", **settings: Any) -> Any:
        judges = {"toy": {"base_url": url, "model": model, "key_env": key_env, "prices": {"input": 1}}}
        known = {"data": {"path": "d.json", "test": None}, "judges": judges, "rubric": RUBRIC}
        made.append(make_utility(UTILITIES["judge"].config_class(**known | settings), root=tmp_path))
        made[-1].open()
        return made[-1]

    yield make
    for utility in made:
        utility.close()


def scores(utility: Any) -> list[float]:
    outcomes = utility.outcomes("validation", range(len(ANSWERS)), ANSWERS)
    assert [outcome.error for outcome in outcomes] == [None] * len(ANSWERS)
    return [outcome.score for outcome in outcomes]


def test_a_structured_choice_is_always_a_rating(judge: Any) -> None:
    utility = judge()
    found = scores(utility)
    assert set(found) <= {0, 0.25, 0.5, 0.75, 1}
    entries = [json.loads(text) for text in utility.learned().values()]
    assert all(entry["usage"][0] == 1 and entry["usage"][1] > 5 for entry in entries)


def expected_digit(answer: str) -> float:
    """The mean digit that the model answers with, from its logits in transformers."""
    tokenizer = AutoTokenizer.from_pretrained(world() / "base")
    model = AutoModelForCausalLM.from_pretrained(world() / "base", dtype=torch.float32)
    chat = [{"role": "user", "content": RUBRIC.format(answer=answer)}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        probabilities = model(**ids).logits[0, -1].softmax(-1)
    digits = probabilities[tokenizer.convert_tokens_to_ids(list("0123456789"))]
    return float((digits * torch.arange(10)).sum() / digits.sum())


def test_the_expected_rating_is_that_of_the_model_in_transformers(judge: Any) -> None:
    utility = judge(rating="expected", lowest=0, highest=9)
    found = scores(utility)
    assert found == pytest.approx([expected_digit(answer) / 9 for answer in ANSWERS], abs=2e-3)


def test_pairs_are_judged_in_both_orders(judge: Any) -> None:
    utility = judge(against="reference", rubric="{first} {second} add 12 34")
    found = scores(utility)
    assert set(found) <= {0, 0.25, 0.5, 0.75, 1} and found[0] == 0.5  # it is the reference


def test_a_text_that_is_too_long_fails_its_example(judge: Any) -> None:
    (outcome,) = judge().outcomes("validation", [0], ["abc " * 100])
    assert outcome.score is None and "400 Bad Request" in str(outcome.error) and "\n" not in str(outcome.error)


def test_an_unknown_model_and_a_wrong_key_are_refused(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"404 Not Found.*did you mean toy\?$"):
        judge(model="toys")
    monkeypatch.setenv("OTHER_KEY", "wrong")
    with pytest.raises(UserError, match="401 Unauthorized.*the key is wrong"):
        judge(key_env="OTHER_KEY")
