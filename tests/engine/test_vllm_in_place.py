"""Merging into vLLM's own parameters in place, as on a GPU: here its CPU build is kept from packing them."""

from __future__ import annotations

from typing import Any

import pytest

from evoswarm.engine import TransformersEngine
from evoswarm.engine import VllmEngine as VllmConfig
from evoswarm.engine.base import Engine
from evoswarm.engine.errors import EngineDied
from evoswarm.engine.vllm import VllmEngine
from evoswarm.toy import world
from evoswarm.weights.expert import open_expert

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")

BASE = str(world() / "base")
PROMPTS, OPTIONS = ["sort dbacf", "rev abcd", "eats bebu"], [["abcd", " 17", "x", "yz"]] * 3


def weights(expert: str) -> dict[str, Any]:
    opened = open_expert(world() / "experts" / expert)
    return {name: opened.flat(name).reshape(spec.shape) for name, spec in opened.specs.items()}


def unpacked(layer: Any, remove_weight: bool) -> None:
    """What vLLM does itself where it has no faster kernel."""
    import torch

    layer.cpu_linear = torch.nn.functional.linear


@pytest.fixture(scope="module")
def vllm() -> VllmEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm", unpacked)
        args = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}
        engine = VllmConfig(args=args).start(model=BASE, adapter=open_expert(world() / "experts" / "rev").config)
    assert isinstance(engine, VllmEngine)
    return engine


def test_particles_are_written_in_place_and_the_base_comes_back(vllm: VllmEngine) -> None:
    reference: Engine = TransformersEngine().start(model=BASE, adapter=open_expert(world() / "experts" / "rev").config)
    found: dict[str | None, Any] = {}
    for expert in (None, "rev", "sort", "rev", None):
        for engine in (vllm, reference):
            engine.install(weights(expert) if expert else None)
        scores = vllm.loglikelihood(PROMPTS, OPTIONS)
        for row, other in zip(scores, reference.loglikelihood(PROMPTS, OPTIONS), strict=True):
            assert [s.logprob for s in row] == pytest.approx([s.logprob for s in other], abs=1e-3)
        assert found.setdefault(expert, scores) == scores
    assert found[None] != found["rev"] != found["sort"]
    assert vllm._llm.collective_rpc(lambda worker: worker._evoswarm_place is not None) == [True]


def test_a_prefix_cache_that_cannot_be_cleared_is_an_error(vllm: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm._llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(EngineDied, match="prefix cache of the previous weights could not be cleared"):
        vllm.install(None)
