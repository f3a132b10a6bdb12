"""A closed vLLM engine leaves nothing behind, and another one starts in the same process."""

from __future__ import annotations

import weakref

import pytest

from evoswarm.engine import VllmEngine
from evoswarm.toy import world

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")


@pytest.mark.slow
def test_two_engines_one_after_the_other() -> None:
    config = VllmEngine(args={"max_model_len": 64, "enforce_eager": True})
    answers = []
    for _ in range(2):
        engine = config.start(model=str(world() / "base"), adapter=None)
        (model,) = engine._llm.apply_model(weakref.ref)  # type: ignore[attr-defined]
        answers.append(engine.generate(["rev abc"], max_new_tokens=4))
        assert model() is not None
        engine.close()
        assert model() is None
    assert answers[0] == answers[1]
