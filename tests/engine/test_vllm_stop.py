"""Where answers end: the real vLLM, on its CPU build, as transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evoswarm.engine import TransformersEngine
from evoswarm.engine import VllmEngine as VllmConfig
from evoswarm.engine.base import Engine
from evoswarm.toy import world
from evoswarm.utility import Chat
from evoswarm.utility.types import Prefix
from evoswarm.weights.expert import open_expert

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
pytestmark = pytest.mark.slow

PROMPTS = [Chat((("user", f"rev {text}"),)) for text in ("abcd", "ddca", "jihg")]
STOPS = [
    (),
    ("</s>",),
    ("</s>", "c"),
    ("a</s>",),
    ("</s><user>",),
    ("<user>",),
    (" ",),
    ("b",),
]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    """Both with a base that calls `<pad>` its end token, so that `</s>` is just a special token in its answers."""
    folder = Path(shutil.copytree(world() / "base", tmp_path_factory.mktemp("models") / "base"))
    for name, value in (("config.json", 0), ("generation_config.json", 0), ("tokenizer_config.json", "<pad>")):
        content = json.loads((folder / name).read_text())
        key = "eos_token" if isinstance(value, str) else "eos_token_id"
        (folder / name).write_text(json.dumps(content | {key: value}))
    opened = open_expert(world() / "experts" / "rev")
    vllm = VllmConfig(args={"max_model_len": 64, "enforce_eager": True}).start(model=str(folder), adapter=opened.config)
    reference = TransformersEngine().start(model=str(folder), adapter=opened.config)
    for engine in (vllm, reference):
        engine.install(opened.tensors())
    return vllm, reference


@pytest.mark.parametrize("stop", STOPS)
def test_both_engines_end_answers_at_the_same_stop_strings(
    engines: tuple[Engine, Engine], stop: tuple[str, ...]
) -> None:
    found = [engine.generate(PROMPTS, max_new_tokens=12, stop=stop) for engine in engines]
    assert found[0] == found[1]
    for engine in engines:
        replies = engine.verify(PROMPTS, ["dcba", "acdd", "xyz"], max_new_tokens=12, stop=stop)
        for text, verified in zip(found[0], replies, strict=True):
            reply = verified.reply
            assert reply == text or (isinstance(reply, Prefix) and text.startswith(reply.text))
    if stop == ("</s>",):
        assert found[0] == ["dcba", "acdd", "ghij"]


def test_an_end_token_that_is_no_stop_string_does_not_end_an_answer(engines: tuple[Engine, Engine]) -> None:
    (text, *_) = engines[0].generate(PROMPTS, max_new_tokens=12)
    assert text.startswith("dcba") and len(text) > 4 and "</s>" not in text
