"""The one place that knows which engines there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evoswarm.config.run import EngineConfig, FakeEngine, TransformersEngine, VllmEngine
from evoswarm.engine.base import Engine


def make_engine(config: EngineConfig, *, model: str, adapter: Mapping[str, Any] | None) -> Engine:
    """Start the engine that `config` names.

    Args:
        config: which engine, and its settings.
        model: base model folder or hub name.
        adapter: adapter_config.json of the pool's adapters; None where experts are full checkpoints.

    Raises:
        UserError: the model or its tokenizer cannot be loaded.
    """
    return ENGINES[config.type](config, model, adapter)


def _transformers(config: TransformersEngine, model: str, adapter: Mapping[str, Any] | None) -> Engine:
    from evoswarm.engine.transformers import HfEngine

    return HfEngine(config, model=model, adapter=adapter)


def _vllm(config: VllmEngine, model: str, adapter: Mapping[str, Any] | None) -> Engine:
    from evoswarm.engine.vllm import VllmEngine as Vllm

    return Vllm(config, model=model, adapter=adapter)


def _fake(config: FakeEngine, model: str, adapter: Mapping[str, Any] | None) -> Engine:
    from evoswarm.engine.fake import EchoEngine

    return EchoEngine(delay=config.delay)


ENGINES: dict[str, Callable[[Any, str, Mapping[str, Any] | None], Engine]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "fake": _fake,
}
